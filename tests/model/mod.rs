//! Random histories, played to a slow and obvious shared cache and to ours: what ours does must be among what the other
//! allows. A difference is printed with its seed, cut down to the steps that bring it about.
//!
//! The reference ([`reference`]) is written from the RFCs and uses nothing of the programs.

mod fields;
mod functions;
mod history;
mod node;
mod reference;

use std::collections::BTreeMap;

use fields::{Fields, has, lines, members};
use history::{History, Reply, Request, at};
use reference::{Keep, Kept, Reference, Way, is_failure};

/// When histories begin.
const BEGIN: u64 = 1_795_266_040_000;
/// The length of every content, in bytes.
const LENGTH: u64 = 20;

/// What the origin says to fields that it is sent at a time, and when it has said so.
type Origin<'a> = dyn FnMut(&Fields, u64) -> (Option<(u16, Fields)>, u64) + 'a;

/// What a client was answered: a status, and which bytes of the content if not all.
type Answer = (u16, Vec<(u64, u64)>);

/// What a cache did with a request.
#[derive(Clone, Debug)]
enum Told {
    /// Answered with what it held.
    Reused { id: u64, age: u64, behind: bool },
    /// Asked, was told that what it held is good, and answered with that.
    Revalidated { id: u64, status: u16, fields: Fields },
    /// Asked, and answered with what came.
    Fetched { status: u16, stored: bool },
    /// Asked in vain, and answered with what it held.
    Rescued { id: u64, age: u64 },
    /// Asked in vain.
    Failed,
    /// Handed on.
    Passed,
    /// 504.
    Refused,
}

/// What a cache did, and what it holds now.
struct Done {
    told: Told,
    /// What the client got of stored content.
    answered: Option<Answer>,
    then: u64,
    /// Contents and their fields.
    held: Vec<(u64, Fields)>,
}

/// Something that plays the part of a cache.
trait Cache {
    /// When its next history begins.
    fn begin(&mut self) -> u64 {
        BEGIN
    }

    fn serve(&mut self, request: &Request, now: u64, origin: &mut Origin<'_>) -> Done;
}

/// One conversation with the origin.
#[derive(Clone, Debug)]
struct Asked {
    sent: Fields,
    asked: u64,
    answered: u64,
    answer: Option<(u16, Fields)>,
}

/// The origin of a step: says what the step says, with a new content each time.
fn origin_answers(reply: &Reply, delay: u64, id: u64, sent: &Fields, now: u64) -> Asked {
    let answered = now + delay;
    let mut fields = at(&reply.fields, answered);
    let tags: Vec<String> = lines(sent, "if-none-match").into_iter().flat_map(members).collect();
    let since = lines(sent, "if-modified-since").first().map(|value| (*value).to_owned());
    let answer = match reply.not_modified {
        _ if reply.status == 0 => None,
        Some(which) if !tags.is_empty() || since.is_some() => {
            fields.retain(|(name, _)| !matches!(name.as_str(), "etag" | "last-modified"));
            match (which, tags.get(which % tags.len().max(1)), since) {
                // It speaks of something that nobody asked about.
                (3, Some(_), _) => fields.push(("etag".into(), "\"elsewhere\"".into())),
                (_, Some(tag), _) => fields.push(("etag".into(), tag.clone())),
                (1, None, _) => {}
                (_, None, Some(since)) => fields.push(("last-modified".into(), since)),
                (_, None, None) => {}
            }
            Some((304, fields))
        }
        _ => {
            fields.push(("x-id".into(), id.to_string()));
            Some((reply.status, fields))
        }
    };
    Asked { sent: sent.clone(), asked: now, answered, answer }
}

/// Plays a history to a cache, the reference looking on. What is wrong, if anything.
fn play(
    history: &History,
    cache: &mut dyn Cache,
    tally: &mut dyn FnMut(&Done),
) -> Result<(), String> {
    let mut reference = Reference::new(history.rules.clone());
    let mut now = cache.begin();
    let mut ids = 0;
    for (number, step) in history.steps.iter().enumerate() {
        now += step.wait;
        let request = Request { fields: at(&step.request.fields, now), ..step.request.clone() };
        let ways = reference.ways(&request, now);
        let mut asked: Vec<Asked> = Vec::new();
        let done = cache.serve(&request, now, &mut |sent: &Fields, when: u64| {
            ids += 1;
            // A second question in one step is for the whole, and gets it.
            let reply = match asked.is_empty() {
                true => step.reply.clone(),
                false => Reply { not_modified: None, ..step.reply.clone() },
            };
            asked.push(origin_answers(&reply, step.delay, ids, sent, when));
            let last = asked.last().unwrap();
            (last.answer.clone(), last.answered)
        });
        judge(&mut reference, &request, now, &ways, &asked, &done).map_err(|why| {
            let answers: Vec<_> = asked.iter().map(|asked| (&asked.sent, &asked.answer)).collect();
            let Done { told, answered, held, .. } = &done;
            let told = match told {
                Told::Revalidated { id, .. } => format!("Revalidated {id}"),
                other => format!("{other:?}"),
            };
            format!(
                "step {number}: {why}\nallowed: {ways:?}\ndone: {told}, answered {answered:?}\norigin: {answers:?}\nheld: {held:?}\nkept: {:#?}",
                reference.kept
            )
        })?;
        tally(&done);
        now = done.then;
    }
    Ok(())
}

/// Whether what was done was allowed; the reference does the same then.
fn judge(
    reference: &mut Reference,
    request: &Request,
    now: u64,
    ways: &[Way],
    asked: &[Asked],
    done: &Done,
) -> Result<(), String> {
    let fits = |way: &&Way| match (&done.told, way) {
        (Told::Reused { id, age, behind }, way) => {
            **way == Way::Reuse { id: *id, age: *age, behind: *behind }
        }
        (Told::Passed, way) => **way == Way::Pass,
        (Told::Failed, Way::Pass) => true,
        (Told::Refused, way) => **way == Way::Refuse,
        (_, way) => matches!(way, Way::Ask { .. }),
    };
    let mut wrong = "not allowed".to_owned();
    for way in ways.iter().filter(fits) {
        let mut after = reference.clone();
        match follow(&mut after, request, now, way, asked, done) {
            Ok(()) => {
                *reference = after;
                return Ok(());
            }
            Err(why) => wrong = why,
        }
    }
    Err(wrong)
}

/// Whether what was done is right for this way.
fn follow(
    reference: &mut Reference,
    request: &Request,
    now: u64,
    way: &Way,
    asked: &[Asked],
    done: &Done,
) -> Result<(), String> {
    let before = reference.kept.clone();
    match way {
        Way::Refuse => expect(asked.is_empty(), "504 and a request")?,
        Way::Reuse { behind: false, .. } => expect(asked.is_empty(), "a hit and a request")?,
        Way::Pass => {
            let [only] = asked else { return Err(format!("handed on {} times", asked.len())) };
            passed(reference, request, only);
        }
        Way::Reuse { id, behind: true, .. } => {
            filled(reference, request, Some(*id), true, asked, done)?;
        }
        Way::Ask { id, stale_until } => {
            let id = filled(reference, request, *id, stale_until.is_some(), asked, done)?;
            let failed = asked.last().is_none_or(|asked| {
                asked.answer.as_ref().is_none_or(|(status, _)| is_failure(*status))
            });
            let rescue = failed && stale_until.is_some_and(|until| done.then <= until);
            expect(
                rescue == matches!(done.told, Told::Rescued { .. }),
                "stale content in place of an error, or not",
            )?;
            if let Told::Rescued { id: rescued, age } = done.told {
                expect(Some(rescued) == id, "other stale content")?;
                let aged = before.iter().filter(|kept| kept.id == rescued);
                let aged = aged.map(|kept| Reference::age(kept, done.then) / 1000);
                expect(aged.clone().any(|own| own == age), "another age")?;
            }
        }
    }
    if let (Some(answered), Some(id)) = (&done.answered, served(&done.told)) {
        let bases: Vec<(u16, Fields)> = match &done.told {
            // As it was served: a 304 may have been good for this one answer only.
            Told::Revalidated { status, fields, .. } => vec![(*status, fields.clone())],
            _ => before.iter().filter(|kept| kept.id == id).map(as_sent).collect(),
        };
        let wanted: Vec<Answer> = bases
            .iter()
            .map(|(status, fields)| reference::answered(request, *status, fields, LENGTH))
            .collect();
        expect(wanted.contains(answered), &format!("answered {answered:?}, not {wanted:?}"))?;
    }
    forget(reference, request, now, asked, done)
}

/// Status and fields of what is kept, with the Date that a cache adds where there is none (RFC 9110 §6.6.1).
fn as_sent(kept: &Kept) -> (u16, Fields) {
    let mut fields = kept.fields.clone();
    if fields::date_field(&fields, "date").is_none() {
        fields.retain(|(name, _)| name != "date");
        let date = fields::date(kept.answered / 1000, fields::Form::Imf);
        fields.push(("date".into(), date));
    }
    (kept.status, fields)
}

/// Names that `private` and `no-cache` list: what is held is without these.
fn listed(kept: &Kept) -> Vec<String> {
    let directives = fields::directives(&kept.fields, "cache-control");
    let listing =
        directives.into_iter().filter(|(name, _)| name == "private" || name == "no-cache");
    listing.filter_map(|(_, argument)| argument).flat_map(|names| members(&names)).collect()
}

/// RFC 9111 §5.2.2.4, §5.2.2.7: they are not kept.
fn without_listed(mut kept: Kept) -> Kept {
    let listed = listed(&kept);
    kept.fields.retain(|(name, _)| !listed.contains(name));
    kept
}

/// Whether these fields are what a cache holds of this exchange.
fn consistent(kept: &Kept, held: &Fields) -> bool {
    let listed = listed(kept);
    let (_, fields) = as_sent(kept);
    fields.iter().all(|(name, value)| {
        let own = name == "age" || listed.contains(name);
        own || lines(held, name).contains(&value.as_str())
    }) && held.iter().all(|field| fields.contains(field) && !listed.contains(&field.0))
}

fn expect(holds: bool, what: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what.to_owned()) }
}

fn served(told: &Told) -> Option<u64> {
    match told {
        Told::Reused { id, .. } | Told::Rescued { id, .. } | Told::Revalidated { id, .. } => {
            Some(*id)
        }
        _ => None,
    }
}

/// The client's fields, without a credential that the origin was not shown.
fn spoken(request: &Request, sent: &Fields) -> Fields {
    let mut fields = request.fields.clone();
    fields.retain(|(name, _)| name != "authorization" || has(sent, name));
    fields
}

/// A request that was handed on untouched.
fn passed(reference: &mut Reference, request: &Request, asked: &Asked) {
    let safe = ["GET", "HEAD", "OPTIONS", "TRACE"].contains(&request.method);
    let fine = asked.answer.as_ref().is_some_and(|(status, _)| (200..400).contains(status));
    if !safe && fine {
        // RFC 9111 §4.4.
        reference.kept.clear();
    }
    // Whether a passed answer ends it is the cache's own affair.
}

/// What a cache asked, and what it may make of the answer. The content that may answer should all fail.
fn filled(
    reference: &mut Reference,
    request: &Request,
    known: Option<u64>,
    failing: bool,
    asked: &[Asked],
    done: &Done,
) -> Result<Option<u64>, String> {
    let Some(first) = asked.first() else { return Err("nobody was asked".into()) };
    sent_for_all(reference, request, known, first)?;
    let behind = matches!(done.told, Told::Reused { .. });
    let mut last = first;
    if let Some((304, fields)) = &first.answer {
        let meant = reference.meant(known, &first.sent, fields);
        let usable = match &done.told {
            Told::Revalidated { id, .. } => Some(*id),
            // Behind the client's back one cannot see which: the one that was asked about, if it may be.
            Told::Reused { id, .. } if asked.len() == 1 => {
                meant.iter().find(|meant| *meant == id).or_else(|| meant.first()).copied()
            }
            _ => None,
        };
        match usable {
            Some(id) => {
                expect(
                    meant.contains(&id),
                    &format!("a 304 that means {meant:?} was taken for {id}"),
                )?;
                // Two copies of one content, for two variants, may have been told different things.
                let letter = reference.rules.by_the_letter;
                let copies: Vec<Kept> = reference
                    .kept
                    .iter()
                    .filter(|kept| kept.id == id)
                    .map(|kept| {
                        Reference::freshened(
                            kept,
                            &spoken(request, &first.sent),
                            fields,
                            first,
                            letter,
                        )
                    })
                    .collect();
                let now_held = |kept: &Kept| match &done.told {
                    Told::Revalidated { fields, .. } => consistent(kept, fields),
                    _ => done.held.iter().any(|held| held.0 == id && consistent(kept, &held.1)),
                };
                let new =
                    copies.iter().find(|kept| now_held(kept)).or_else(|| copies.last()).unwrap();
                let held = done.held.iter().any(|held| held.0 == id && consistent(new, &held.1));
                let keep = reference.keep(new, "GET", false);
                expect(!(held && keep == Keep::Never), "kept after a 304 that forbids it")?;
                expect(held || keep != Keep::Must, "thrown away after a 304")?;
                // What was updated goes with what is held no more.
                let names = lines(fields, "vary").into_iter().flat_map(members);
                reference.named.extend(names.map(|name| name.to_ascii_lowercase()));
                reference.kept.extend(held.then(|| without_listed(new.clone())));
                return Ok(Some(id));
            }
            None => {
                expect(meant.is_empty() || asked.len() == 2, "a 304 was not understood")?;
                let Some(second) = asked.get(1) else { return Err("nothing came of a 304".into()) };
                let conditions = ["if-none-match", "if-modified-since"];
                expect(
                    !conditions.iter().any(|name| has(&second.sent, name)),
                    "asked again with conditions",
                )?;
                last = second;
            }
        }
    }
    // A part of what is fetched and not kept may be asked for once more.
    let most = 2 + usize::from(request.method == "GET" && has(&request.fields, "range"));
    expect(asked.len() <= most, "asked too often")?;
    for (_, fields) in asked.iter().filter_map(|asked| asked.answer.as_ref()) {
        let names = lines(fields, "vary").into_iter().flat_map(members);
        reference.named.extend(names.map(|name| name.to_ascii_lowercase()));
    }
    if let Some((status, fields)) = &last.answer {
        let kept = Kept {
            id: lines(fields, "x-id").first().and_then(|id| id.parse().ok()).unwrap_or(0),
            request: spoken(request, &last.sent),
            sent: last.sent.clone(),
            status: *status,
            fields: fields.clone(),
            asked: last.asked,
            answered: last.answered,
        };
        let keep = reference.keep(&kept, request.method, failing);
        let held = done.held.iter().any(|(held, _)| *held == kept.id);
        expect(!(held && keep == Keep::Never), "kept, though it must not be")?;
        expect(held || keep != Keep::Must, "not kept, though it may be")?;
        if let Told::Fetched { stored, status: said } = done.told {
            expect(stored == held && said == *status, "told otherwise")?;
        }
        if held {
            reference.kept.push(without_listed(kept));
            reference.marked = false;
        } else if *status < 500 {
            reference.marked = true;
        }
    }
    expect(!behind || !matches!(done.told, Told::Fetched { .. }), "no answer from what was held")?;
    Ok(known)
}

/// A request for the store is everybody's: no client's conditions, range or, in the safe profile, anything that the key
/// does not hold; and it asks about what is kept.
fn sent_for_all(
    reference: &Reference,
    request: &Request,
    known: Option<u64>,
    asked: &Asked,
) -> Result<(), String> {
    for name in ["range", "if-range", "if-match", "if-unmodified-since"] {
        expect(!has(&asked.sent, name), &format!("{name} was sent for all"))?;
    }
    if !reference.rules.by_the_letter {
        for name in ["cookie", "x-a", "x-other"] {
            let named = name != "cookie" && reference.named.iter().any(|known| known == name);
            let sent = has(&asked.sent, name);
            expect(!sent || named, &format!("{name} was sent in the safe profile"))?;
        }
    }
    let own = |name: &str| -> Vec<String> {
        let kept = reference.kept.iter().filter(|kept| known.is_none_or(|id| id == kept.id));
        kept.flat_map(|kept| lines(&kept.fields, name)).map(str::to_owned).collect()
    };
    let tags: Vec<String> =
        lines(&asked.sent, "if-none-match").into_iter().flat_map(members).collect();
    let valid: Vec<String> =
        own("etag").into_iter().filter(|tag| fields::entity_tag(tag).is_some()).collect();
    let all: Vec<String> = reference
        .kept
        .iter()
        .flat_map(|kept| lines(&kept.fields, "etag"))
        .map(str::to_owned)
        .collect();
    // RFC 9111 §4.3.1: with all that may be meant, and with nothing else.
    expect(
        valid.iter().all(|tag| tags.contains(tag)),
        &format!("{tags:?} were sent, not {valid:?}"),
    )?;
    expect(tags.iter().all(|tag| all.contains(tag)), &format!("{tags:?} of {all:?}"))?;
    let dates: Vec<String> = reference
        .kept
        .iter()
        .flat_map(|kept| lines(&kept.fields, "last-modified"))
        .map(str::to_owned)
        .collect();
    let since = lines(&asked.sent, "if-modified-since");
    // A 304 to a date speaks of what the request selects; what it does not select has no part in it.
    expect(
        known.is_some() || since.is_empty(),
        "asked by the date of what the request does not select",
    )?;
    expect(
        since.iter().all(|date| dates.iter().any(|own| own == date)),
        "another's date was sent",
    )?;
    expect(request.method == "GET" || request.method == "HEAD", "asked for the store")
}

/// A cache may forget, but not what it has just been given; and it holds nothing that it should not.
fn forget(
    reference: &mut Reference,
    request: &Request,
    now: u64,
    asked: &[Asked],
    done: &Done,
) -> Result<(), String> {
    for (id, fields) in &done.held {
        for name in ["connection", "age", "cache-status"] {
            expect(!has(fields, name), &format!("{name} is held"))?;
        }
        let known = reference.kept.iter().any(|kept| kept.id == *id && consistent(kept, fields));
        expect(known, &format!("{id} is held with fields that it should not have"))?;
    }
    let held = |kept: &Kept| {
        done.held.iter().any(|(id, fields)| *id == kept.id && consistent(kept, fields))
    };
    // Others go when something new comes in their place, and when an origin's word makes them useless.
    let changed = !asked.is_empty();
    let gone = reference.kept.iter().filter(|kept| !held(kept)).count();
    expect(gone == 0 || changed, &format!("{gone} forgotten by {} at {now}", request.method))?;
    reference.kept.retain(held);
    // Of copies of one content that look alike, the oldest have gone.
    let mut ids: Vec<u64> = reference.kept.iter().map(|kept| kept.id).collect();
    ids.dedup();
    for id in ids {
        let held = done.held.iter().filter(|held| held.0 == id).count();
        while reference.kept.iter().filter(|kept| kept.id == id).count() > held {
            let oldest = reference.kept.iter().position(|kept| kept.id == id).unwrap();
            reference.kept.remove(oldest);
        }
    }
    Ok(())
}

/// What was done, in a word.
fn word(done: &Done) -> &'static str {
    match done.told {
        Told::Reused { behind: true, .. } => "stale, asked behind",
        Told::Reused { .. } => "reused",
        Told::Revalidated { .. } => "revalidated",
        Told::Fetched { stored: true, .. } => "stored",
        Told::Fetched { .. } => "fetched",
        Told::Rescued { .. } => "stale for an error",
        Told::Failed => "failed",
        Told::Passed => "passed",
        Told::Refused => "refused",
    }
}

#[test]
fn our_functions_do_what_the_reference_allows() {
    let number = |name, default: u64| {
        std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let (first, count) = (number("MODEL_SEED", 1), number("MODEL_HISTORIES", 20_000));
    let mut seen: BTreeMap<String, u64> = BTreeMap::new();
    for seed in first..first + count {
        let mut tally = |done: &Done| {
            *seen.entry(word(done).to_owned()).or_default() += 1;
            if let Some((status, _)) = done.answered {
                *seen.entry(status.to_string()).or_default() += 1;
            }
        };
        let history = History::of(seed);
        let fresh = |history: &History| functions::Functions::new(&history.rules);
        if play(&history, &mut fresh(&history), &mut tally).is_err() {
            let run = |history: &History| play(history, &mut fresh(history), &mut |_| {});
            let shortest = history.shrink(|history| run(history).is_err());
            let why = run(&shortest).unwrap_err();
            panic!(
                "seed {seed} (MODEL_SEED={seed} MODEL_HISTORIES=1 repeats it)\n{shortest}\n{why}"
            );
        }
    }
    println!("{count} histories from seed {first}: {seen:?}");
    // Histories in which nothing happens would show nothing.
    let kinds = [
        "reused",
        "stale, asked behind",
        "revalidated",
        "stored",
        "fetched",
        "stale for an error",
        "failed",
        "passed",
        "refused",
        "200",
        "206",
        "304",
        "404",
        "412",
        "416",
    ];
    if count >= 20_000 {
        for kind in kinds {
            let times = seen.get(kind).copied().unwrap_or(0);
            assert!(times >= count / 2_000, "{kind}: only {times} times in {count} histories");
        }
    }
}

//! Class CHAOS: the names by which a server says who it is and what it runs (RFC 4892), where it is configured to.

use super::Answering;
use crate::reason::Reason;
use crate::rtype;
use crate::wire::{QUESTION_NAME, Rcode, Section, class};

/// Owner, type TXT, class CH, TTL 0, lengths, text.
const RECORD_BYTES: usize = 12 + 1 + 255;

impl Answering<'_, '_> {
    /// Any class but IN.
    #[cold]
    pub(super) fn other_class(&mut self) {
        let server = self.context.server;
        let text = match self.name.as_wire() {
            b"\x02id\x06server\0" | b"\x08hostname\x04bind\0" => &server.nsid,
            b"\x07version\x06server\0" | b"\x07version\x04bind\0" => &server.version,
            _ => &None,
        };
        let is_asked =
            self.query.qclass == class::CH && matches!(self.query.qtype, rtype::TXT | rtype::ANY);
        let Some(text) = text.as_deref().filter(|_| is_asked) else {
            return self.fail(Rcode::Refused, Reason::Class);
        };
        let mut record = [0; RECORD_BYTES];
        let Some((room, length)) =
            record.get_mut(13..13 + text.len()).zip(u8::try_from(text.len()).ok())
        else {
            return self.fail(Rcode::Refused, Reason::Class);
        };
        room.copy_from_slice(text);
        let [owner_high, owner_low] = QUESTION_NAME.to_be_bytes();
        let [data_high, data_low] = (u16::from(length) + 1).to_be_bytes();
        if let Some(head) = record.first_chunk_mut() {
            *head = [owner_high, owner_low, 0, 16, 0, 3, 0, 0, 0, 0, data_high, data_low, length];
        }
        let whole = record.get(..13 + text.len()).unwrap_or_default();
        self.response.put(Section::Answer, 1, whole);
        self.authoritative = true;
        self.facts.reason = Reason::Identity;
    }
}

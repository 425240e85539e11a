//! The admin API and its description agree.

use std::collections::{BTreeMap, BTreeSet};

use http::Method;
use shared::io::admin::Call;
use tokio::sync::mpsc;

use super::{ScriptedOrigin, send, simple};
use crate::io::admin::{ENDPOINTS, OPENAPI, ReloadRequest, answer};
use crate::io::purge::purge;
use crate::purge::{Kind, Target};

#[tokio::test]
async fn every_documented_path_is_answered_and_every_answered_path_is_documented() {
    let openapi: serde_json::Value = serde_json::from_str(OPENAPI).unwrap();
    assert_eq!(openapi["openapi"], "3.1.0");
    let documented: BTreeMap<(String, String), BTreeSet<String>> = openapi["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, methods)| {
            methods.as_object().unwrap().iter().map(move |(method, operation)| {
                let responses = operation["responses"].as_object().unwrap().keys().cloned();
                ((method.clone(), path.clone()), responses.collect())
            })
        })
        .collect();
    let answered: BTreeSet<_> =
        ENDPOINTS.iter().map(|(method, path)| ((*method).to_owned(), format!("/{path}"))).collect();
    assert_eq!(documented.keys().cloned().collect::<BTreeSet<_>>(), answered);

    let origin = ScriptedOrigin::start(|_| vec![send(super::OK)]).await;
    let node = simple(&origin);
    let (reloads, mut asked) = mpsc::channel::<ReloadRequest>(1);
    tokio::spawn(async move {
        while let Some(reload) = asked.recv().await {
            let _ = reload.send(Ok(()));
        }
    });
    let tag = Target::Tag("a".into());
    let known = purge(&node.node, &[tag], Kind::Hard, None).await.unwrap().id.to_string();
    let call = async |method: &str, path: &str, query: &[(&str, &str)]| {
        let call = Call {
            method: if method == "get" { Method::GET } else { Method::POST },
            segments: path.replace("{id}", &known).split('/').skip(1).map(str::to_owned).collect(),
            query: query.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
            body: bytes::Bytes::from_static(br#"{ "tags": ["a"] }"#),
        };
        answer(&node.node, &call, &reloads).await.status.as_u16().to_string()
    };
    for ((method, path), responses) in &documented {
        let url = [("url", "http://www.test/")];
        assert_eq!(call(method, path, &url).await, "200", "{method} {path}");
        let other = if method == "get" { "post" } else { "get" };
        assert_eq!(call(other, path, &url).await, "405", "{other} {path}");
        if responses.contains("421") {
            assert_eq!(call(method, path, &[]).await, "400", "{path}");
            let unknown = [("url", "http://unknown.test/")];
            assert_eq!(call(method, path, &unknown).await, "421", "{path}");
        }
    }
    assert_eq!(call("get", "/v1/nothing", &[]).await, "404");
}

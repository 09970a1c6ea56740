//! Fuzz targets: whatever comes, it is refused or read, and what is read is a message.

use http::Method;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};

use crate::json::{self, Style};
use crate::route::{Body, RouteMatch, Router, Rule};
use crate::schema::{MessageId, Schema};
use crate::tests::EVERYTHING;

fn all() -> (&'static Schema, MessageId, MessageDescriptor) {
    let (schema, encoded) = &*EVERYTHING;
    let pool = DescriptorPool::decode(&**encoded).unwrap();
    (
        schema,
        schema.message_id("everything.All").unwrap(),
        pool.get_message_by_name("everything.All").unwrap(),
    )
}

/// A line is a template, the next one a path.
#[test]
fn templates_and_paths() {
    let words = ["/v1", "{name=", "**", "*", "}", ":verb", "%2F", "%zz", "/", "{", "\n", "ä"];
    fuzz::run("template", &words, |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        let (template, path) = text.split_once('\n').unwrap_or((text, ""));
        let mut router = Router::default();
        let rule = Rule {
            method: 0,
            verb: Some(Method::GET),
            template: template.to_owned(),
            body: Body::None,
            response_body: None,
        };
        if router.add(rule, |_| Ok(vec![0])).is_ok()
            && let Ok(RouteMatch::Binding(_, captures)) = router.find(&Method::GET, path)
        {
            assert!(captures.iter().all(|capture| capture.text.len() <= path.len()), "{text}");
        }
    })
    .unwrap();
}

#[test]
fn queries() {
    let (schema, _, descriptor) = all();
    let Ok(RouteMatch::Binding(binding, captures)) = schema.router.find(&Method::GET, "/v1/echo") else {
        panic!("no route")
    };
    let words = [
        "&",
        "=",
        ".",
        "nested.",
        "aString=",
        "an_int64=",
        "strings=",
        "choiceInt32=",
        "mask=",
        "%F0",
        "+",
        "struct={}",
    ];
    fuzz::run("query", &words, |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        if let Ok(message) = crate::message(schema, binding, &captures, text, b"") {
            DynamicMessage::decode(descriptor.clone(), &*message).unwrap();
        }
    })
    .unwrap();
}

#[test]
fn json_texts() {
    let (schema, id, descriptor) = all();
    let words = [
        "{", "}", "[", "]", "\"", ":", ",", "null", "true", "1e9", "-0.0", "\\u", "\\ud83d", "aString",
        "nested", "Infinity", "😀",
    ];
    fuzz::run("json", &words, |input| {
        for style in [Style::CANONICAL, Style::CONNECT] {
            let Ok(message) = json::read(schema, id, input, style) else { continue };
            DynamicMessage::decode(descriptor.clone(), &*message).unwrap();
            let text = |message: &[u8]| {
                let mut out = Vec::new();
                json::write(schema, id, message, style, &mut out).unwrap();
                out
            };
            let written = text(&message);
            let again = json::read(schema, id, &written, style).unwrap();
            assert_eq!(text(&again), written);
        }
    })
    .unwrap();
}

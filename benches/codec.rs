//! What JSON costs: a user of about 200 bytes as protobuf and 475 as JSON, both ways, by the tables of `usersd`, by
//! prost-reflect's dynamic messages, and, for scale, prost's own encoding without any JSON.
//!
//! `cargo bench --bench codec`

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a program of ours to be read by us")]

use std::hint::black_box;
use std::time::Instant;

use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage};
use usersd::DESCRIPTOR_SET;
use usersd::http::Schema;
use usersd::http::json::{self, Style};
use usersd::pb;

const ROUNDS: usize = 41;
const CALLS: u32 = 5_000;

fn main() {
    let user = user();
    let wire = user.encode_to_vec();
    let schema = Schema::decode(DESCRIPTOR_SET).unwrap();
    let id = schema.message_id("users.User").unwrap();
    let mut text = Vec::new();
    json::write(&schema, id, &wire, Style::CANONICAL, &mut text).unwrap();
    println!(
        "{} B protobuf, {} B JSON, ns a call, median of {ROUNDS} rounds of {CALLS}",
        wire.len(),
        text.len()
    );

    let descriptor =
        DescriptorPool::decode(DESCRIPTOR_SET).unwrap().get_message_by_name("users.User").unwrap();
    let mut calls: [(&str, &mut dyn FnMut() -> usize); 6] = [
        ("prost-reflect: protobuf to JSON", &mut || {
            let message = DynamicMessage::decode(descriptor.clone(), black_box(&*wire)).unwrap();
            serde_json::to_vec(&message).unwrap().len()
        }),
        ("prost-reflect: JSON to protobuf", &mut || {
            let mut source = serde_json::Deserializer::from_slice(black_box(&text));
            DynamicMessage::deserialize(descriptor.clone(), &mut source).unwrap().encode_to_vec().len()
        }),
        ("usersd: protobuf to JSON", &mut || {
            let mut out = Vec::with_capacity(512);
            json::write(&schema, id, black_box(&wire), Style::CANONICAL, &mut out).unwrap();
            out.len()
        }),
        ("usersd: JSON to protobuf", &mut || {
            json::read(&schema, id, black_box(&text), Style::CANONICAL).unwrap().len()
        }),
        ("prost: encode", &mut || black_box(&user).encode_to_vec().len()),
        ("prost: decode", &mut || pb::User::decode(black_box(&*wire)).unwrap().labels.len()),
    ];
    let medians = measure(&mut calls);
    for ((what, _), median) in calls.iter().zip(&medians) {
        println!("{what:<34} {median:>7.0}");
    }
    println!("protobuf to JSON: {:.1} times faster than prost-reflect", medians[0] / medians[2]);
    println!("JSON to protobuf: {:.1} times faster than prost-reflect", medians[1] / medians[3]);
}

/// Median nanoseconds of each call. They take turns, so that a noisy moment of the machine meets them all.
fn measure(calls: &mut [(&str, &mut dyn FnMut() -> usize)]) -> Vec<f64> {
    let mut rounds = vec![Vec::new(); calls.len()];
    for _ in 0..ROUNDS {
        for ((_, call), times) in calls.iter_mut().zip(&mut rounds) {
            let start = Instant::now();
            for _ in 0..CALLS {
                black_box(call());
            }
            times.push(start.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS));
        }
    }
    for times in &mut rounds {
        times.sort_by(f64::total_cmp);
    }
    rounds.iter().map(|times| times[ROUNDS / 2]).collect()
}

fn user() -> pb::User {
    pb::User {
        id: "0190163d-8694-739b-aea5-966c26f8ad90".into(),
        username: "ada.lovelace".into(),
        email: "ada.lovelace@example.com".into(),
        created: 1_700_000_000,
        updated: 1_700_086_400,
        name: "Ada Lovelace".into(),
        status: pb::UserStatus::Active.into(),
        email_verified: true,
        password_updated: 1_700_000_000,
        labels: vec!["staff".into(), "beta".into(), "mathematics".into()],
        metadata: [("team".to_owned(), "engines".to_owned()), ("crm".to_owned(), "c-1815-12-10".to_owned())]
            .into(),
        etag: "\"7-0190163d8694739b\"".into(),
        ..pb::User::default()
    }
}

//! What JSON costs: a user of about 200 bytes as protobuf and 475 as JSON, both ways, by the tables of `usersd`, beside
//! prost-reflect's dynamic messages, and, for scale, beside prost's own encoding without any JSON.

use std::hint::black_box;
use std::time::Instant;

use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage};
use usersd::DESCRIPTOR_SET;
use usersd::http::Schema;
use usersd::http::json::{self, Style};
use usersd::pb;

use crate::Result;
use crate::figures::{Figure, Target};

const ROUNDS: usize = 41;
const CALLS: u32 = 5_000;

/// One way of doing one of the two, by the bytes it made.
type Convert<'a> = dyn FnMut() -> Result<usize> + 'a;

/// Our table and prost-reflect, each way.
pub(crate) fn measure() -> Result<Vec<Figure>> {
    let user = user();
    let wire = user.encode_to_vec();
    let schema = Schema::decode(DESCRIPTOR_SET)?;
    let id = schema.message_id("users.User").ok_or("users.User is not in the descriptors")?;
    let mut text = Vec::new();
    json::write(&schema, id, &wire, Style::CANONICAL, &mut text)?;
    let pool = DescriptorPool::decode(DESCRIPTOR_SET)?;
    let descriptor = pool.get_message_by_name("users.User").ok_or("users.User is not in the descriptors")?;
    let mut calls: [&mut Convert<'_>; 6] = [
        &mut || {
            let message = DynamicMessage::decode(descriptor.clone(), black_box(&*wire))?;
            Ok(serde_json::to_vec(&message)?.len())
        },
        &mut || {
            let mut source = serde_json::Deserializer::from_slice(black_box(&text));
            Ok(DynamicMessage::deserialize(descriptor.clone(), &mut source)?.encode_to_vec().len())
        },
        &mut || {
            let mut out = Vec::with_capacity(512);
            json::write(&schema, id, black_box(&wire), Style::CANONICAL, &mut out)?;
            Ok(out.len())
        },
        &mut || {
            let read = json::read(&schema, id, black_box(&text), Style::CANONICAL);
            Ok(read.map_err(|_| "the JSON that was written is not read")?.len())
        },
        &mut || Ok(black_box(&user).encode_to_vec().len()),
        &mut || Ok(pb::User::decode(black_box(&*wire))?.labels.len()),
    ];
    let [write_theirs, read_theirs, write, read, encode, decode] = rounds(&mut calls)?;
    let figure =
        |name, ours: &[f64], theirs: &[f64], target| Figure::beside(name, "ns", ours, theirs, target);
    Ok(vec![
        figure("protobuf to JSON, beside prost-reflect", &write, &write_theirs, Target::AtMost(0.5)),
        figure("JSON to protobuf, beside prost-reflect", &read, &read_theirs, Target::AtMost(0.5)),
        figure("protobuf to JSON, beside prost's encoding", &write, &encode, Target::None),
        figure("JSON to protobuf, beside prost's decoding", &read, &decode, Target::None),
    ])
}

/// Nanoseconds that each took in each round. They take turns, so that a noisy moment of the machine meets them all.
fn rounds<const N: usize>(calls: &mut [&mut Convert<'_>; N]) -> Result<[Vec<f64>; N]> {
    let mut rounds = [const { Vec::new() }; N];
    for _ in 0..ROUNDS {
        for (call, times) in calls.iter_mut().zip(&mut rounds) {
            let start = Instant::now();
            for _ in 0..CALLS {
                black_box(call()?);
            }
            times.push(start.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS));
        }
    }
    Ok(rounds)
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

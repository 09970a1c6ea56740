//! Writes databases in MaxMind's format, from its specification (MaxMind DB File Format, version 2.0): a
//! binary tree of address bits, the records, and what the database says of itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A value of a record.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Text(&'static str),
    /// The width in bits that it is declared to have, and the number.
    Number(u16, u16),
    Map(Vec<(&'static str, Value)>),
    List(Vec<Value>),
}

use Value::{List, Map, Number, Text};

/// Bytes between the tree and the records.
const GAP: usize = 16;

/// Before what the database says of itself.
const MARKER: &[u8] = b"\xab\xcd\xefMaxMind.com";

/// The node that a bit leads to.
#[derive(Clone, Copy)]
enum Next {
    Nowhere,
    Node(usize),
    Record(usize),
}

/// A database of the given type with one record a network; `version` 4 for IPv4 alone, 6 for both.
pub(super) fn database(kind: &'static str, version: u16, networks: &[(&str, Value)]) -> Vec<u8> {
    let mut tree = vec![[Next::Nowhere; 2]];
    let mut records = Vec::new();
    for (network, record) in networks {
        let path = path(network, version);
        let at = records.len();
        encode(record, &mut records);
        insert(&mut tree, &path, at);
    }
    let mut file = Vec::new();
    for next in tree.iter().flatten() {
        let number = match *next {
            Next::Nowhere => tree.len(),
            Next::Node(node) => node,
            Next::Record(at) => tree.len() + GAP + at,
        };
        file.extend(u32::try_from(number).unwrap().to_be_bytes());
    }
    file.extend([0; GAP]);
    file.extend(records);
    file.extend(MARKER);
    let about = Map(vec![
        ("binary_format_major_version", Number(16, 2)),
        ("binary_format_minor_version", Number(16, 0)),
        ("build_epoch", Number(64, 1)),
        ("database_type", Text(kind)),
        ("description", Map(vec![("en", Text("made by a test"))])),
        ("ip_version", Number(16, version)),
        ("languages", List(vec![Text("en")])),
        ("node_count", Number(32, u16::try_from(tree.len()).unwrap())),
        ("record_size", Number(16, 32)),
    ]);
    encode(&about, &mut file);
    file
}

/// The bits of a network like `10.0.0.0/8`. IPv4 lies at `::/96` of a tree for both.
fn path(network: &str, version: u16) -> Vec<usize> {
    let (address, length) = network.split_once('/').unwrap();
    let length: usize = length.parse().unwrap();
    let (bits, width, length) = match (address.parse().unwrap(), version) {
        (IpAddr::V4(address), 4) => (u128::from(Ipv4Addr::to_bits(address)), 32, length),
        (IpAddr::V4(address), _) => (u128::from(Ipv4Addr::to_bits(address)), 128, length + 96),
        (IpAddr::V6(address), _) => (Ipv6Addr::to_bits(address), 128, length),
    };
    (0..length).map(|i| usize::from(bits >> (width - 1 - i) & 1 == 1)).collect()
}

fn insert(tree: &mut Vec<[Next; 2]>, path: &[usize], record: usize) {
    let (last, before) = path.split_last().unwrap();
    let mut node = 0;
    for bit in before {
        if let Next::Node(next) = tree[node][*bit] {
            node = next;
        } else {
            tree.push([Next::Nowhere; 2]);
            let new = tree.len() - 1;
            tree[node][*bit] = Next::Node(new);
            node = new;
        }
    }
    tree[node][*last] = Next::Record(record);
}

/// A control byte with type and size, a second one for types over 7, then the content.
fn encode(value: &Value, out: &mut Vec<u8>) {
    match value {
        Text(text) => {
            out.push(2 << 5 | u8::try_from(text.len()).ok().filter(|size| *size < 29).unwrap());
            out.extend(text.bytes());
        }
        // Two bytes will do, whatever the width: those in front of them are left out.
        Number(width, number) => {
            match width {
                16 => out.push(5 << 5 | 2),
                32 => out.push(6 << 5 | 2),
                _ => out.extend([2, 9 - 7]),
            }
            out.extend(number.to_be_bytes());
        }
        Map(entries) => {
            out.push(7 << 5 | u8::try_from(entries.len()).unwrap());
            for (key, value) in entries {
                encode(&Text(key), out);
                encode(value, out);
            }
        }
        List(items) => {
            out.extend([u8::try_from(items.len()).unwrap(), 11 - 7]);
            for item in items {
                encode(item, out);
            }
        }
    }
}

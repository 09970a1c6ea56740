//! Turns messages into JSON and back by the crate `transcode`: `usersd-json DESCRIPTORS`.
//!
//! A line of standard input is `read` or `write`, a style, the name of a message, and the JSON or the encoded message in
//! hexadecimal digits. A line of standard output is the other form, or `-` if it is refused.

use std::error::Error;
use std::io::{BufRead as _, Write as _};

use transcode::json::{self, Style};
use transcode::schema::Schema;

fn main() -> Result<(), Box<dyn Error>> {
    let descriptors = std::fs::read(std::env::args_os().nth(1).ok_or("wants a descriptor set")?)?;
    let schema = Schema::decode(&descriptors)?;
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        match answer(&schema, &line?)? {
            Some(bytes) => writeln!(out, "{}", to_hex(&bytes))?,
            None => writeln!(out, "-")?,
        }
    }
    Ok(())
}

/// Returns the other form, or `None` if it is refused.
fn answer(schema: &Schema, line: &str) -> Result<Option<Vec<u8>>, Box<dyn Error>> {
    let [what, style, name, hex] = line.split(' ').collect::<Vec<_>>()[..] else {
        return Err(format!("a line that is none: {line}").into());
    };
    let style = match style {
        "canonical" => Style::CANONICAL,
        "connect" => Style::CONNECT,
        "micro" => Style::MICRO,
        _ => return Err(format!("no style: {style}").into()),
    };
    let id = schema.message_id(name).ok_or_else(|| format!("no message: {name}"))?;
    let bytes = from_hex(hex)?;
    if what == "read" {
        return Ok(json::read(schema, id, &bytes, style).ok());
    }
    let mut text = Vec::new();
    Ok(json::write(schema, id, &bytes, style, &mut text).is_ok().then_some(text))
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Result<Vec<u8>, Box<dyn Error>> {
    let digits = text.as_bytes().chunks(2);
    digits.map(|pair| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?)).collect()
}

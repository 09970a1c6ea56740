//! Compiles `proto/` to Rust and to a descriptor set, without protoc, and the data of the crate `ua-parser` to
//! tables, and the common passwords of the crate `zxcvbn` and of `src/domain/data` to a list; works out the digits of pi that bcrypt begins with.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use prost::Message as _;
use yaml_rust2::{Yaml, YamlLoader};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const PROTOS: [&str; 3] = ["users.proto", "keys.proto", "errors.proto"];

fn main() -> Result<()> {
    let out = PathBuf::from(variable("OUT_DIR")?);
    protos(&out)?;
    digits_of_pi(&out)?;
    common_passwords(&out)?;
    user_agents(&out)
}

fn variable(name: &str) -> Result<std::ffi::OsString> {
    Ok(std::env::var_os(name).ok_or_else(|| format!("cargo sets {name}"))?)
}

fn protos(out: &Path) -> Result<()> {
    println!("cargo:rerun-if-changed=proto");
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).include_source_info(true).open_files(PROTOS)?;

    // The encoded form keeps google.api.http; prost's own types drop extensions.
    let encoded = compiler.encode_file_descriptor_set();
    std::fs::write(out.join("usersd.descriptors"), &encoded)?;

    let files = prost_types::FileDescriptorSet::decode(encoded.as_slice())?;
    tonic_prost_build::configure()
        .build_transport(false)
        .codec_path("crate::grpc::codec::Codec")
        .btree_map(".")
        .compile_fds(files)?;
    Ok(())
}

/// Writes the expressions that `ua-parser` reads user agents by as tables of Rust: its package ships them as
/// YAML, but the crate does not hold them. Tables need no parser and no memory of their own at run time.
fn user_agents(out: &Path) -> Result<()> {
    let data = package_folder("ua-parser", out)?.join("uap-core/regexes.yaml");
    // Another version of the package is another path, which only the lock file tells.
    println!("cargo:rerun-if-changed=Cargo.lock");
    println!("cargo:rerun-if-changed={}", data.display());
    let text = std::fs::read_to_string(&data).map_err(|error| format!("{}: {error}", data.display()))?;
    let documents = YamlLoader::load_from_str(&text)?;
    let lists = documents.first().ok_or("regexes.yaml is empty")?;
    let mut code = String::new();
    for (list, fields) in [
        (
            "user_agent_parsers",
            "family_replacement v1_replacement v2_replacement v3_replacement v4_replacement",
        ),
        (
            "os_parsers",
            "os_replacement os_v1_replacement os_v2_replacement os_v3_replacement os_v4_replacement",
        ),
        ("device_parsers", "regex_flag device_replacement brand_replacement model_replacement"),
    ] {
        table(&mut code, list, &fields.split(' ').collect::<Vec<_>>(), &lists[list])?;
    }
    Ok(std::fs::write(out.join("user_agents.rs"), code)?)
}

/// One list of the data as a table: of each entry the expression and the named fields.
fn table(code: &mut String, name: &str, fields: &[&str], list: &Yaml) -> Result<()> {
    let entries = list.as_vec().ok_or_else(|| format!("regexes.yaml has no list {name}"))?;
    let (name, width) = (name.to_uppercase(), fields.len());
    writeln!(code, "pub(super) static {name}: &[(&str, [Option<&str>; {width}])] = &[")?;
    for entry in entries {
        let known = |key: &Yaml| key.as_str().is_some_and(|key| key == "regex" || fields.contains(&key));
        if let Some(key) = entry.as_hash().and_then(|entry| entry.keys().find(|key| !known(key))) {
            return Err(format!("{name} of regexes.yaml has a field that is not known: {key:?}").into());
        }
        let regex = entry["regex"].as_str().ok_or_else(|| format!("no regex in {entry:?}"))?;
        let values = fields.iter().map(|field| match &entry[*field] {
            Yaml::BadValue | Yaml::Null => Ok(None), // not there, or left empty
            Yaml::String(text) => Ok(Some(text.as_str())),
            other => Err(format!("{field} of {regex:?} is no text: {other:?}")),
        });
        let values = values.collect::<std::result::Result<Vec<Option<&str>>, _>>()?;
        writeln!(code, "({regex:?}, {values:?}),")?;
    }
    writeln!(code, "];")?;
    Ok(())
}

/// Where cargo keeps a package that we depend on, be it downloaded or vendored.
///
/// Asks about a package of its own that depends on this one alone, at the version of our lock file. To ask about
/// ours would download what only tests and benchmarks need, or fail where the network is out of reach.
fn package_folder(name: &str, out: &Path) -> Result<PathBuf> {
    let probe = out.join("probe");
    std::fs::create_dir_all(&probe)?;
    let manifest = probe.join("Cargo.toml");
    std::fs::write(
        &manifest,
        format!(
            "[package]\nname = \"probe\"\nedition = \"2024\"\n[lib]\npath = \"probe.rs\"\n\
             [dependencies]\n{name} = \"*\"\n[workspace]\n"
        ),
    )?;
    let mut answer = Err("".into());
    // What the build needs is there already; only a cache that was tidied meanwhile makes the second try needed.
    for offline in [&["--offline"][..], &[]] {
        std::fs::copy("Cargo.lock", probe.join("Cargo.lock"))?;
        answer = metadata(&manifest, offline);
        if answer.is_ok() {
            break;
        }
    }
    let answer = answer?;
    let package = answer["packages"].as_array().into_iter().flatten().find(|package| package["name"] == name);
    let manifest = package.and_then(|package| package["manifest_path"].as_str());
    let folder = manifest.and_then(|manifest| Path::new(manifest).parent());
    Ok(folder.ok_or_else(|| format!("cargo metadata does not tell where {name} is"))?.to_owned())
}

fn metadata(manifest: &Path, flags: &[&str]) -> Result<serde_json::Value> {
    let output = Command::new(variable("CARGO")?)
        .args(["metadata", "--format-version", "1", "--filter-platform"])
        .arg(variable("TARGET")?)
        .arg("--manifest-path")
        .arg(manifest)
        .args(flags)
        .output()?;
    if !output.status.success() {
        return Err(format!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Writes the 30,000 passwords of the crate `zxcvbn`, whose code alone holds them, and the long ones that we keep (see
/// `src/domain/data`), in order, a line each.
fn common_passwords(out: &Path) -> Result<()> {
    const LIST: &str = "const PASSWORDS: &str = \"";
    const LONG: &str = "src/domain/data/long_passwords.txt";
    let code = package_folder("zxcvbn", out)?.join("src/frequency_lists.rs");
    println!("cargo:rerun-if-changed={}", code.display());
    let text = std::fs::read_to_string(&code).map_err(|error| format!("{}: {error}", code.display()))?;
    let (_, rest) = text.split_once(LIST).ok_or("zxcvbn has no list of passwords")?;
    let (list, _) = rest.split_once("\";\n").ok_or("zxcvbn's list of passwords has no end")?;
    let list = list.replace("\\\"", "\"").replace("\\\\", "\\");
    println!("cargo:rerun-if-changed={LONG}");
    let long = std::fs::read_to_string(LONG)?;
    let mut passwords: Vec<&str> = list.split(',').chain(long.lines()).collect();
    passwords.sort_unstable();
    passwords.dedup();
    Ok(std::fs::write(out.join("common_passwords.txt"), passwords.join("\n"))?)
}

/// Writes the state that Blowfish begins with: as many bits of pi behind its point as its tables have, 32 to a word.
/// By Machin: pi = 16 arctan(1/5) - 4 arctan(1/239).
fn digits_of_pi(out: &Path) -> Result<()> {
    const WORDS: usize = 18 + 4 * 256;
    // One word before the point, and one behind the last for what rounding eats.
    let mut sum = vec![0; WORDS + 2];
    add_arctan(&mut sum, 16, 5, false);
    add_arctan(&mut sum, 4, 239, true);
    let mut code = format!("static PI: [u32; {WORDS}] = [\n");
    for word in &sum[1..=WORDS] {
        writeln!(code, "0x{:04x}_{:04x},", word >> 16, word & 0xffff)?;
    }
    code.push_str("];\n");
    Ok(std::fs::write(out.join("pi.rs"), code)?)
}

/// Adds `times` arctan(1/`of`) to `sum`, or takes it away: 1/of - 1/(3 of^3) + 1/(5 of^5) ...
fn add_arctan(sum: &mut [u64], times: u64, of: u64, minus: bool) {
    let mut power = vec![0; sum.len()];
    power[0] = times;
    divide(&mut power, of);
    let mut n = 1;
    while power.iter().any(|word| *word != 0) {
        let mut term = power.clone();
        divide(&mut term, n);
        add(sum, &term, minus != (n % 4 == 3));
        divide(&mut power, of * of);
        n += 2;
    }
}

/// Divides a number of words of 32 bits, the most significant first.
fn divide(number: &mut [u64], by: u64) {
    let mut rest = 0;
    for word in number {
        let now = rest << 32 | *word;
        (*word, rest) = (now / by, now % by);
    }
}

/// Adds `term`, or its two's complement.
fn add(sum: &mut [u64], term: &[u64], minus: bool) {
    let mask = (1 << 32) - 1;
    let mut carry = u64::from(minus);
    for (word, other) in sum.iter_mut().zip(term).rev() {
        let now = *word + if minus { mask - other } else { *other } + carry;
        (*word, carry) = (now & mask, now >> 32);
    }
}

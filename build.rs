//! Compiles `proto/` to Rust and to a descriptor set, without protoc, and the expressions for user agents to tables.
//!
//! Hermetic: reads files of this repository only, runs no program and needs no network.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use prost::Message as _;
use yaml_rust2::{Yaml, YamlLoader};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const PROTOS: [&str; 4] = ["users.proto", "keys.proto", "namespaces.proto", "errors.proto"];
const USER_AGENTS: &str = "src/devices/data/regexes.yaml";

fn main() -> Result<()> {
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    println!("cargo:rustc-env=BUILD_COMMIT={}", commit().as_deref().unwrap_or("unknown"));
    protos(&out)?;
    user_agents(&out)
}

/// The commit that is built: `BUILD_COMMIT`, or in a release build from a checkout that of `.git`. A debug build does not
/// look there: each commit would compile everything once more.
fn commit() -> Option<String> {
    println!("cargo:rerun-if-env-changed=BUILD_COMMIT");
    let given = std::env::var_os("BUILD_COMMIT").and_then(|commit| commit.into_string().ok());
    let given = given.filter(|commit| !commit.is_empty());
    let release = std::env::var_os("PROFILE").is_some_and(|profile| profile == "release");
    given.or_else(|| release.then(commit_of_checkout).flatten())
}

/// The first digits of the commit that `.git` has checked out; in a worktree that is a file which names a folder.
fn commit_of_checkout() -> Option<String> {
    let dot_git = PathBuf::from(".git");
    let git = match std::fs::read_to_string(&dot_git) {
        Ok(text) => PathBuf::from(text.strip_prefix("gitdir:")?.trim()),
        Err(_) => dot_git,
    };
    let head = std::fs::read_to_string(git.join("HEAD")).ok()?;
    // Of these, only the log changes with every commit, also where references are packed.
    for watched in ["HEAD", "logs/HEAD"].map(|name| git.join(name)).iter().filter(|path| path.exists()) {
        println!("cargo:rerun-if-changed={}", watched.display());
    }
    let Some(reference) = head.trim().strip_prefix("ref: ") else { return head.get(..12).map(str::to_owned) };
    let common =
        std::fs::read_to_string(git.join("commondir")).map_or(git.clone(), |path| git.join(path.trim()));
    let loose =
        [&git, &common].iter().find_map(|folder| std::fs::read_to_string(folder.join(reference)).ok());
    let packed = || {
        let packed = std::fs::read_to_string(common.join("packed-refs")).ok()?;
        Some(packed.lines().find(|line| line.ends_with(&format!(" {reference}")))?.to_owned())
    };
    loose.or_else(packed)?.get(..12).map(str::to_owned)
}

fn protos(out: &Path) -> Result<()> {
    println!("cargo:rerun-if-changed=proto");
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).include_source_info(true).open_files(PROTOS)?;

    // The encoded form keeps google.api.http; prost's own types drop extensions.
    let encoded = compiler.encode_file_descriptor_set();
    std::fs::write(out.join("usersd.descriptors"), &encoded)?;

    let files = prost_types::FileDescriptorSet::decode(encoded.as_slice())?;
    std::fs::write(out.join("unary.rs"), unary(&files)?)?;
    tonic_prost_build::configure()
        .build_transport(false)
        .codec_path("crate::grpc::codec::Codec")
        .btree_map(".")
        .compile_fds(files)?;
    Ok(())
}

/// For each service a function that adds its unary RPCs to an `Upstream`.
fn unary(files: &prost_types::FileDescriptorSet) -> Result<String> {
    let mut code = String::new();
    for (file, service) in files.file.iter().flat_map(|file| file.service.iter().map(move |of| (file, of))) {
        let (package, name) = (file.package(), service.name());
        writeln!(
            code,
            "pub(super) fn add_{}(rpcs: &mut Upstream, service: &Arc<impl {name}>) {{",
            name.to_lowercase()
        )?;
        for method in service.method.iter().filter(|it| !it.client_streaming() && !it.server_streaming()) {
            let (rpc, function) = (method.name(), snake_case(method.name()));
            writeln!(
                code,
                "    rpcs.add_unary(\"/{package}.{name}/{rpc}\", service, |service, request| async move {{ \
                 {name}::{function}(&*service, request).await }});"
            )?;
        }
        writeln!(code, "}}")?;
    }
    Ok(code)
}

fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for (at, letter) in name.char_indices() {
        if at > 0 && letter.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

/// Writes the expressions by which `ua-parser` reads user agents as tables of Rust, which need no parser and no memory of
/// their own at run time.
fn user_agents(out: &Path) -> Result<()> {
    println!("cargo:rerun-if-changed={USER_AGENTS}");
    let text = std::fs::read_to_string(USER_AGENTS)?;
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

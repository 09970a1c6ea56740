//! Compiles `proto/` to Rust and to a descriptor set, without protoc.

use std::path::PathBuf;

use prost::Message as _;

const PROTOS: [&str; 2] = ["users.proto", "errors.proto"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).include_source_info(true).open_files(PROTOS)?;

    // The encoded form keeps google.api.http; prost's own types drop extensions.
    let encoded = compiler.encode_file_descriptor_set();
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    std::fs::write(out.join("usersd.descriptors"), &encoded)?;

    let files = prost_types::FileDescriptorSet::decode(encoded.as_slice())?;
    tonic_prost_build::configure()
        .build_transport(false)
        .codec_path("crate::grpc::codec::Codec")
        .btree_map(".")
        .compile_fds(files)?;
    Ok(())
}

//! Compiles the suite's proto to a service and to a descriptor set, without protoc.

use prost::Message as _;
use tonic_prost_build::{Config, FileDescriptorSet};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let mut compiler = protox::Compiler::new(["proto"])?;
    let files = ["service", "server_compat"].map(|file| format!("connectrpc/conformance/v1/{file}.proto"));
    compiler.include_imports(true).open_files(files)?;
    let encoded = compiler.encode_file_descriptor_set();
    let out = std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?;
    std::fs::write(std::path::Path::new(&out).join("suite.descriptors"), &encoded)?;

    let mut config = Config::new();
    config.enable_type_names().type_name_domain(["."], "type.googleapis.com");
    tonic_prost_build::configure()
        .build_client(false)
        .build_transport(false)
        .codec_path("usersd::grpc::codec::Codec") // the service is read and written as the product's are
        .compile_fds_with_config(FileDescriptorSet::decode(&*encoded)?, config)?;
    Ok(())
}

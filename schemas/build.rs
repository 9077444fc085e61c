//! Compiles the protobuf files in pure Rust and refuses a schema that does not say how each field is to be handled.
//!
//! Writes `starling.v1.rs` (message types, for producers and tests) and `fields.rs` (field numbers and handling, which the
//! decoder of `minimize` is written over).

#[path = "build/table.rs"]
mod table;

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=event.proto");
    println!("cargo:rerun-if-changed=options.proto");
    println!("cargo:rerun-if-changed=build/table.rs");
    println!("cargo:rerun-if-changed=build.rs");
    let mut compiler = protox::Compiler::new(["."])?;
    compiler.include_imports(true).include_source_info(true).open_files(["event.proto"])?;
    let pool = compiler.descriptor_pool();
    let set = compiler.file_descriptor_set();

    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("fields.rs"), table::fields(&pool)?)?;
    let mut config = prost_build::Config::new();
    config.compile_fds(set)?;
    Ok(())
}

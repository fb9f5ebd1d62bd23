//! Compresses the texts that the program carries, which would be 50 kB of it otherwise.
//! `src/assets/mod.rs` takes them from the folder of the build and inflates them again.

use std::io::{Result, Write};
use std::path::PathBuf;
use std::{env, fs};

use flate2::Compression;
use flate2::write::DeflateEncoder;

const ASSETS: [&str; 5] = [
    "alerts.yml",
    "dashboard.json",
    "page.css",
    "scrape-config.yml",
    "ttn-gateway-exporter.service",
];

fn main() -> Result<()> {
    let output = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    for name in ASSETS {
        let path = format!("src/assets/{name}");
        println!("cargo::rerun-if-changed={path}");
        // Not `read`: what is no UTF-8 must end here, since the program relies on it.
        let text = fs::read_to_string(path)?;
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(text.as_bytes())?;
        fs::write(output.join(name), encoder.finish()?)?;
    }
    Ok(())
}

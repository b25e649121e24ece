//! Writes every target's seeds from `tests/vectors`: `cargo run --example seeds -- FOLDER`.

use sortie_fuzz::seeds;
use std::path::{Path, PathBuf};

fn main() -> std::io::Result<()> {
    let into: PathBuf = std::env::args_os().nth(1).expect("usage: seeds FOLDER").into();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let vectors = seeds::vectors(&root.join("../tests/vectors"))?;
    for target in root.join("fuzz_targets").read_dir()? {
        let target = target?.path().with_extension("");
        let name = target.file_name().and_then(|name| name.to_str()).expect("a target's name");
        let folder = into.join(name);
        std::fs::create_dir_all(&folder)?;
        for (number, seed) in seeds::seeds(name, &vectors).iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{number:04}")), seed)?;
        }
    }
    Ok(())
}

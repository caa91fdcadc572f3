//! The Hub's names for the contents of files.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use sha1::Sha1;
use sha2::{Digest, Sha256};

/// What a file must hash to.
#[derive(Clone, PartialEq, Debug)]
pub enum Checksum {
    /// SHA-256, as of files in Git LFS.
    Sha256(String),
    /// SHA-1 of what Git stores (`git hash-object`), as of others.
    Git(String),
}

impl Checksum {
    /// `None` if an ETag is no checksum: the server is none of Hugging Face's.
    pub fn from_etag(etag: &str) -> Option<Self> {
        let hex = etag.to_ascii_lowercase();
        match hex.len() {
            _ if !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) => None,
            64 => Some(Checksum::Sha256(hex)),
            40 => Some(Checksum::Git(hex)),
            _ => None,
        }
    }

    /// SHA-256 of a text.
    pub fn of_text(text: &str) -> String {
        hex(&Sha256::digest(text))
    }

    /// In hexadecimal.
    pub fn hex(&self) -> &str {
        let (Checksum::Sha256(hex) | Checksum::Git(hex)) = self;
        hex
    }

    /// The checksum of a file, of the same kind as `kind`, or else SHA-256.
    pub fn of(file: &Path, kind: Option<&Checksum>) -> std::io::Result<Self> {
        let open = File::open(file)?;
        Ok(match kind {
            Some(Checksum::Git(_)) => {
                let header = format!("blob {}\0", open.metadata()?.len());
                Checksum::Git(digest(open, Sha1::new().chain_update(header))?)
            }
            _ => Checksum::Sha256(digest(open, Sha256::new())?),
        })
    }
}

fn digest<D: Digest>(mut file: File, mut digest: D) -> std::io::Result<String> {
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            n => digest.update(&buffer[..n]),
        }
    }
    Ok(hex(&digest.finalize()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

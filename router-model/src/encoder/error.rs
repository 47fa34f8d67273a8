//! What can be wrong with an encoder's file or folder.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why an encoder was refused; nothing of it is in use then.
#[derive(Debug, Error)]
pub enum EncoderError {
    #[error("{path}: cannot be read: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path}: no such file or folder; a hub's model is brought by: hf download {path}")]
    Absent { path: PathBuf },
    #[error("{0}")]
    File(#[from] engine::gguf::GgufError),
    #[error("this encoder is \"{got}\", this build reads \"{want}\"; export it again")]
    Version { got: String, want: &'static str },
    #[error("\"{field}\" cannot be used: {why}")]
    Field { field: &'static str, why: String },
    #[error("tensor \"{name}\" is missing")]
    Missing { name: String },
    #[error("tensor \"{name}\" cannot be used: {why}")]
    Tensor { name: String, why: String },
    #[error(
        "the tensors' checksum is {got:016x}, the header says {want:016x}; the file is damaged"
    )]
    Checksum { got: u64, want: u64 },
    #[error("{path}: not a model's safetensors: {why}")]
    Safetensors { path: PathBuf, why: String },
    #[error(
        "the encoder's own classifier knows [{got}], the lexical weights [{want}]; \
         collegium supervisor train with this encoder in the configuration makes both fit"
    )]
    Labels { got: String, want: String },
}

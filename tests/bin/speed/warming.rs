//! How quickly a specialist becomes ready, beside how quickly memory is copied.
//!
//! In: a model's file, which the system should have in its cache.  Out: seconds of [`engine::Bank::warm`], as the pool's thread
//! calls it, for a specialist whose experts are all there and for one that lacks some; and seconds of a copy of as many
//! bytes, each right after.

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use config::Device;
use engine::Model;
use engine::gguf::Gguf;
use serde_json::{Value, json};
use tests::random::masks;

use crate::measure::bank;
use crate::{machine, said};

/// Of each layer's experts, the share that both masks are drawn from: the union of eight is then 1.8 masks, as of the
/// published ones.
const POOL: f64 = 0.4427;

/// `repeat` of each, after one of each that is not counted.
pub fn report(file: &Path, device: Device, repeat: usize) -> Result<Value, String> {
    let model = Model::load(Gguf::open(file).map_err(said)?).map_err(said)?;
    let shape = model.shape();
    if shape.experts / 4 < shape.top_k.max(1) {
        return Err("only of a model with many experts can some be lacking".into());
    }
    let bank = bank(&model, device)?;
    let masks = masks(shape, 2, 0.25, POOL, 1);
    let (neighbour, comes) = (&masks[0], &masks[1]);
    bank.warm(neighbour);
    let lacking = bank.warm(comes);
    bank.evict(comes);
    let from = vec![1u8; lacking.bytes as usize];
    let mut to = from.clone();
    let (mut warm, mut copy, mut resident) = (vec![], vec![], vec![]);
    let disk = machine::read_from_disk();
    for _ in 0..repeat {
        warm.push(seconds(|| _ = bank.warm(comes)));
        copy.push(seconds(|| black_box(&mut to).copy_from_slice(black_box(&from))));
        resident.push(seconds(|| _ = bank.warm(comes)));
        // Both holds.
        bank.evict(comes);
        bank.evict(comes);
    }
    Ok(json!({
        "experts": lacking.experts,
        "bytes": lacking.bytes,
        "mask_bytes": bank.bytes(comes),
        "warm_s": warm,
        "copy_s": copy,
        "resident_s": resident,
        "pages_from_disk": machine::read_from_disk() - disk,
    }))
}

fn seconds(work: impl FnOnce()) -> f64 {
    let begun = Instant::now();
    work();
    begun.elapsed().as_secs_f64()
}

//! Opening, copies, queues that wait for each other, graphs, and slots of experts.

use cudarc::driver::sys;

use super::*;
use crate::bank::{Arena, DeviceMemory, Place, Residents};
use crate::cuda::{CudaError, Each, Mark, Pinned, Slice, Slots};
use crate::gguf::Gguf;
use crate::model::Model;

/// `tests/gpu/emulate.sh` runs this one again with each thing lacking.
#[test]
fn what_is_lacking_is_said() {
    #[track_caller]
    fn check(index: usize, lacks: fn(&CudaError) -> bool, said: &str) {
        let error = Device::open(index).err().unwrap();
        assert!(lacks(&error) && error.to_string().contains(said), "{error}");
    }
    // SAFETY: looks for a library.
    if !unsafe { sys::is_culib_present() } {
        check(0, |e| matches!(e, CudaError::NoDriver), "libcuda.so.1 is not found; install");
        return;
    }
    let nvidia_smi = "finds no device; see what nvidia-smi says";
    match std::env::var("EMULATOR_LACKS").as_deref() {
        Err(_) => {
            assert!(!Device::open(0).unwrap().name().is_empty());
            check(99, |e| matches!(e, CudaError::NoDevice), nvidia_smi);
        }
        Ok("device") => check(0, |e| matches!(e, CudaError::NoDevice), nvidia_smi),
        Ok("version") => {
            let said = "knows CUDA 12.4, this build needs 13.0: install driver 580";
            check(0, |e| matches!(e, CudaError::OldDriver { have: 12_040 }), said);
        }
        Ok("capability") => {
            let said = "has compute capability 7.0, kernels need 8.0";
            check(0, |e| matches!(e, CudaError::OldDevice { .. }), said);
        }
        Ok(other) => panic!("the emulator always has a {other}"),
    }
}

#[test]
fn what_there_is_no_memory_for_is_said() {
    let q = queue();
    let (free, total) = q.device().memory().unwrap();
    assert!(free > 0 && free <= total);
    let error = Buffer::<u8>::new(q.device(), total * 2).err().unwrap();
    assert!(matches!(error, CudaError::OutOfMemory { .. }), "{error}");
}

#[test]
fn copies_keep_what_was_there() {
    let q = queue();
    let values: Vec<u32> = (0..1000).collect();
    let here = up(&q, &values);
    let there = Buffer::new(q.device(), 1000).unwrap();
    q.copy(there.slice(), here.slice()).unwrap();
    q.clear(here.slice().range(10..20)).unwrap();
    assert_eq!(q.read(there.slice()).unwrap(), values);
    assert_eq!(
        q.read(here.slice().range(9..21)).unwrap()[..],
        [9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 20]
    );
}

/// Without `after` the second queue would read what is no number.
#[test]
fn a_queue_waits_for_another() {
    let (first, second) = (queue(), queue());
    let rows = Count::new(&first, 1);
    let (x, out) = (blank(&first, 8), blank(&first, 8));
    first.wait().unwrap();
    let values = Pinned::new(first.device(), 8).unwrap();
    let mark = Mark::new(first.device()).unwrap();
    // SAFETY: the values stay as they are.
    unsafe { first.write_pinned(x.slice(), &values, 8) }.unwrap();
    first.mark(&mark).unwrap();
    second.after(&mark).unwrap();
    let each = Each { x: x.slice(), out: out.slice(), rows: rows.rows(), dim: 8 };
    each.scale(&second, 2.0).unwrap();
    assert_eq!(second.read(out.slice()).unwrap(), [0.0; 8]);
    mark.wait().unwrap();
}

/// What changes between runs is what buffers hold, how many rows among it.
#[test]
fn a_graph_does_again_what_was_recorded() {
    let q = queue();
    let (most, dim) = (5, 300);
    let x = noise(most * dim, 1);
    let (count, on_device) = (Count::new(&q, 0), up(&q, &x));
    let out = blank(&q, most * dim);
    let each = |out| Each { x: on_device.slice(), out, rows: count.of(most), dim };
    let graph = q.record(|| {
        each(out.slice()).scale(&q, 3.0)?;
        let again = Each { x: out.slice(), ..each(out.slice()) };
        again.add(&q, on_device.slice())
    });
    let graph = graph.unwrap();
    assert_eq!(bits(&q.read(out.slice()).unwrap()), vec![u32::MAX; most * dim], "recorded only");
    for rows in [2, 5] {
        q.write(count.0.slice(), &[rows as u32]).unwrap();
        q.run(&graph).unwrap();
        let want: Vec<f32> = x[..rows * dim].iter().map(|v| v * 3.0 + v).collect();
        let got = q.read(out.slice()).unwrap();
        assert_eq!(got[..rows * dim], want);
        assert!(got[rows * dim..].iter().all(|v| v.is_nan()), "rows beyond are left alone");
    }
}

#[test]
fn slots_hold_what_was_copied_in() {
    let q = Arc::new(queue());
    let mut rng = fastrand::Rng::with_seed(7);
    let mut slots = Slots::new(&q, 200 << 20).unwrap();
    // Longer than a piece of the copy.
    let experts: Vec<Vec<u8>> = [100, 9 << 20, 60 << 20, 256].map(|n| vec![rng.u8(..); n]).into();
    let mut places: Vec<usize> = Vec::new();
    for bytes in &experts {
        let at = slots.reserve(bytes.len()).unwrap();
        assert!(at.is_multiple_of(256));
        slots.copy_in(at, bytes);
        places.push(at);
    }
    assert_eq!(slots.reserved(), 256 + (9 << 20) + (60 << 20) + 256);
    assert_eq!(slots.reserve(200 << 20), None);
    // One that was released is the next of its size, and no other's.
    slots.release(places[0]);
    assert_ne!(slots.reserve(512), Some(places[0]));
    assert_eq!(slots.reserve(100), Some(places[0]));
    // A slot that is taken again holds the new one, once what was asked before has read the old one.
    let read = |at: usize, len: usize| {
        // SAFETY: a slot lies there.
        q.read(unsafe { Slice::<u8>::at(at as u64, len) }).unwrap()
    };
    slots.arrived().unwrap();
    for (at, bytes) in places.iter().zip(&experts) {
        assert!(read(*at, bytes.len()) == *bytes);
    }
    slots.copy_in(places[0], &[1, 2, 3]);
    slots.arrived().unwrap();
    assert_eq!(read(places[0], 4)[..3], [1, 2, 3]);
}

#[cfg(feature = "nano")]
#[test]
fn experts_of_a_parent_come_to_their_slots() {
    let q = Arc::new(queue());
    let model = Model::load(Gguf::nano().unwrap()).unwrap();
    let arena = Arena::new(&model, Slots::new(&q, 256 << 20).unwrap());
    let (layer, experts) = (model.shape().layers - 1, model.shape().experts);
    for e in 0..experts {
        assert!(arena.bring_in(layer * experts + e));
    }
    arena.memory(Slots::arrived).unwrap();
    for (e, expert) in model.experts(layer).iter().enumerate() {
        let mut at = arena.slot_of(layer, e).unwrap() as u64;
        for slice in &expert.slices {
            // SAFETY: a slot lies there.
            let got = q.read(unsafe { Slice::<u8>::at(at, slice.bytes().len()) }).unwrap();
            assert!(got == slice.bytes(), "expert {e}");
            at += slice.bytes().len().next_multiple_of(256) as u64;
        }
    }
    // What experts took goes back to the device when the last of them has left.
    assert!(arena.memory(Slots::taken) > 0);
    let nobody = Residents::new(model.shape().layers, experts);
    for e in 0..experts {
        arena.give_back(layer * experts + e, &nobody);
    }
    assert_eq!((arena.memory(Slots::taken), arena.reported_bytes()), (0, Some(0)));
}

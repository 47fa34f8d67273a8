//! A parent on a device: what computes its steps.
//!
//! A step goes to the device in one copy, its layers are asked for without waiting, and its logits come back.  Steps of few
//! rows are recorded once for each [`Size`] and played again; where experts must be fetched on the way nothing is recorded.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use tracing::error;

use super::device::{CudaError, Device};
use super::inputs::{Inputs, Size};
use super::layers::{Running, Taps, used};
use super::memory::Slice;
use super::products::{Embed, Work, product};
use super::queue::{Graph, Queue};
use super::rows::{Each, Norm, Refuse};
use super::scratch::Scratch;
use super::slots::Slots;
use super::tensors::Tensors;
use super::units::DeviceUnits;
use crate::bank::{Arena, Place};
use crate::kv::{Layout, Units};
use crate::model::Model;
use crate::run::Run;
use crate::step::{Ran, Step};

/// Rows up to which steps are recorded: larger ones keep the device busy while the next kernels are asked for.
const RECORDED: usize = 64;

/// What decides which kernels a step asks for, and with which addresses.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    size: Size,
    norms: bool,
    /// Of a page: how exactly keys and values are kept.
    page_bytes: usize,
    /// Of rooms.
    grown: u64,
}

/// A parent on a device.
pub struct Gpu {
    queue: Arc<Queue>,
    arena: Arc<Arena<Slots>>,
    state: Mutex<State>,
}

struct State {
    tensors: Tensors,
    scratch: Scratch,
    /// Where experts were when that was written last, and to which address.
    table: (u64, Vec<u64>),
    /// Steps that ran once as they are, and those that are recorded.
    seen: HashMap<Key, Option<Graph>>,
}

impl Gpu {
    /// Takes a parent to a device; its tensors come with the bank.
    ///
    /// # Errors
    ///
    /// [`CudaError`]; what kernels cannot do is said by name.
    pub fn open(ordinal: u32, model: &Arc<Model>) -> Result<Arc<Gpu>, CudaError> {
        let device = Device::open(ordinal as usize)?;
        super::limits::check(model).map_err(|what| CudaError::Unsuited { what })?;
        let (free, _) = device.memory()?;
        let queue = Arc::new(Queue::new(&device)?);
        let slots = Slots::new(&queue, free)?;
        Ok(Arc::new(Gpu {
            arena: Arc::new(Arena::new(model, slots)),
            state: Mutex::new(State {
                tensors: Tensors::new(&queue),
                scratch: Scratch::new(&device),
                table: (0, Vec::new()),
                seen: HashMap::new(),
            }),
            queue,
        }))
    }

    fn step(
        &self,
        model: &Model,
        step: &mut Step<'_, '_>,
        tokens: &[u32],
        wanted: &[usize],
    ) -> Result<Vec<f32>, CudaError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { tensors, scratch, table, seen } = &mut *state;
        let (shape, queue) = (model.shape(), &self.queue);
        let _hold = self.arena.hold();
        let size = Size::of(step, wanted.len());
        scratch.begin(size.rows, shape.dim);
        let inputs = Inputs::new((scratch, queue), model, step, tokens, wanted)?;
        let all_there =
            step.segments.iter().enumerate().all(|(index, segment)| {
                inputs.bounded(index) || step.experts.all_there(segment.mask)
            });
        let slots = slots_of(&self.arena, (scratch, queue), table)?;
        let taps = taps(scratch, size.rows, shape.layers, shape.top_k.max(1))?;
        let norms = step.segments.iter().any(|segment| segment.taps.is_some());
        let logits = scratch.room("logits", size.wanted * shape.vocab)?;
        let rows = step.rows();
        let page_bytes = step.segments.first().map_or(0, |s| s.pages.page_bytes());
        let key = Key { size, norms, page_bytes, grown: scratch.grown };
        let recordable = all_there && size.rows <= RECORDED;
        self.arena.memory(Slots::arrived)?;
        let mut ask = |scratch: &mut Scratch, step: &mut Step<'_, '_>| {
            let mut run = Running {
                queue,
                arena: &self.arena,
                model,
                step,
                inputs: &inputs,
                tensors,
                scratch,
                table: slots,
                taps,
                norms,
                all_there,
                failed: None,
            };
            let done = through(&mut run, logits);
            run.failed.map_or(done, Err)
        };
        match seen.get(&key) {
            Some(Some(graph)) if recordable => queue.run(graph)?,
            Some(None) if recordable => {
                // Nobody brings in experts meanwhile: what marks this queue would be recorded with the step.
                let graph = self.arena.memory(|_| queue.record(|| ask(scratch, step)))?;
                queue.run(&graph)?;
                seen.insert(key, Some(graph));
            }
            _ => {
                ask(scratch, step)?;
                // Rooms that were made now are where later steps find them.
                let key = Key { grown: scratch.grown, ..key };
                seen.retain(|other, _| other.grown == scratch.grown);
                seen.entry(key).or_insert(None);
            }
        }
        let read = |from: Slice<'_, f32>, len: usize| queue.read(from.range(0..len));
        let logits = read(logits, wanted.len() * shape.vocab)?;
        tap(queue, model, step, taps, (rows, size.rows), norms, all_there)?;
        Ok(logits)
    }
}

/// Embeds the tokens, runs all layers, and makes the logits of the rows that are wanted.
fn through<'r>(run: &mut Running<'r, '_, '_>, logits: Slice<'r, f32>) -> Result<(), CudaError> {
    let (model, inputs, queue) = (run.model, run.inputs, run.queue);
    let (dim, vocab) = (model.shape().dim, model.shape().vocab);
    let register = run.scratch.take()?;
    let x = run.scratch.rows(&register);
    let embed = Embed {
        kind: model.embedding.kind(),
        matrix: run.tensors.bytes(&model.embedding)?,
        k: dim,
        scale: model.embedding_scale,
        tokens: inputs.tokens,
        out: x,
        rows: inputs.rows,
    };
    // SAFETY: tokens are below the vocabulary's size, by `Segment`.
    unsafe { embed.launch(queue)? };
    for layer in &model.layers {
        layer.forward(run, &register);
    }
    let rows = inputs.wanted;
    if rows.most > 0 {
        let last = run.scratch.room("last", rows.most * dim)?;
        // SAFETY: what is wanted are rows of the step.
        unsafe { Each { x, out: last, rows, dim }.gather(queue, inputs.picks)? };
        let weight = run.tensors.vector(&model.output_norm.weight)?;
        Norm { x: last, weight, out: last, rows, eps: model.output_norm.eps }.launch(queue)?;
        let w = run.tensors.matrix(&model.output)?;
        let input = run.scratch.input(queue, model.output.form(), (last, dim), rows)?;
        // SAFETY: the matrix is a tensor of the device.
        unsafe { product(queue, &w, input, Work::Rows(rows), logits)? };
        if let Some(cap) = model.softcap {
            Each { x: logits, out: logits, rows, dim: vocab }.softcap(queue, cap)?;
        }
        Refuse { x: last, logits, rows, dim, vocab }.launch(queue)?;
    }
    run.give_back(register);
    Ok(())
}

/// Where experts are, on the device; written only if that changed.
fn slots_of<'r>(
    arena: &Arena<Slots>,
    (scratch, queue): (&mut Scratch, &Queue),
    last: &mut (u64, Vec<u64>),
) -> Result<Slice<'r, u64>, CudaError> {
    let now = arena.table();
    let there = scratch.room("slots", now.len().max(1))?;
    let now = (there.address(), now);
    if *last != now {
        queue.write(there, &now.1)?;
        *last = now;
    }
    Ok(there)
}

fn taps<'r>(
    scratch: &mut Scratch,
    rows: usize,
    layers: usize,
    top_k: usize,
) -> Result<Taps<'r>, CudaError> {
    let pairs = layers * rows * top_k;
    Ok(Taps {
        ids: scratch.room("ids", pairs)?,
        gates: scratch.room("gates", pairs)?,
        norms: scratch.room("norms", pairs)?,
        full_ids: scratch.room("full ids", pairs)?,
        full_gates: scratch.room("full gates", pairs)?,
        missing: scratch.room("missing", layers * rows)?,
    })
}

/// Counts what routed layers did with the rows, which are fewer than there is room for.
fn tap(
    queue: &Queue,
    model: &Model,
    step: &mut Step<'_, '_>,
    taps: Taps<'_>,
    (rows, most): (usize, usize),
    norms: bool,
    all_there: bool,
) -> Result<(), CudaError> {
    let shape = model.shape();
    if !shape.routed.contains(&true) {
        return Ok(());
    }
    let (ids, gates) = (queue.read(taps.ids)?, queue.read(taps.gates)?);
    let (full_ids, full_gates) = (queue.read(taps.full_ids)?, queue.read(taps.full_gates)?);
    let norms = if norms { queue.read(taps.norms)? } else { vec![0.0; ids.len()] };
    let missing = queue.read(taps.missing)?;
    let top_k = shape.top_k;
    for layer in (0..shape.layers).filter(|&layer| shape.routed[layer]) {
        let of_row = |row: usize| {
            let first = (layer * most + row) * top_k;
            let ranks = first..first + top_k;
            let ran = ranks.clone().map(|i| (ids[i] as usize, gates[i], norms[i]));
            let full = ranks.map(|i| (full_ids[i] as usize, full_gates[i]));
            Ran { ran: ran.collect(), full: full.collect(), missing: missing[layer * most + row] }
        };
        if all_there {
            let first = layer * most * top_k;
            let used = used(&ids[first..first + rows * top_k], shape.experts);
            let absent = step.experts.prepare(layer, &used, &|_| config::Missing::Map);
            step.experts.passed(layer, &used, absent);
        }
        step.tap(layer, (0..rows).map(of_row).collect());
    }
    Ok(())
}

impl crate::device::Device for Gpu {
    fn name(&self) -> String {
        self.queue.device().name().to_owned()
    }

    fn free_memory(&self) -> Option<u64> {
        self.queue.device().memory().ok().map(|(free, _)| free as u64)
    }

    fn bring_in_backbone(&self, model: &Model) -> u64 {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for tensor in model.backbone() {
            if let Err(why) = state.tensors.bring_in(tensor.as_ptr() as usize, tensor) {
                // The first step meets the same and says so to whom it concerns.
                error!(%why, "a tensor has no place on the device");
                break;
            }
        }
        state.tensors.bytes
    }

    fn place(&self, _: &Arc<Model>) -> Arc<dyn Place> {
        self.arena.clone()
    }

    fn units(&self, layout: &Layout, _: u64) -> io::Result<Box<dyn Units>> {
        let units = DeviceUnits::new(self.queue.device(), layout.unit_bytes());
        Ok(Box::new(units.map_err(io::Error::other)?))
    }

    fn run(
        &self,
        model: &Model,
        step: &mut Step<'_, '_>,
        tokens: &[u32],
        wanted: &[usize],
    ) -> Vec<f32> {
        self.step(model, step, tokens, wanted).unwrap_or_else(|why| {
            error!(%why, "a step failed on the device; its answers end");
            vec![f32::NAN; wanted.len() * model.shape().vocab]
        })
    }
}

//! The operations of layers, as kernels: [`Run`] on a device.
//!
//! Nothing is computed here and nothing waits, but where experts that a row may choose are not in memory
//! ([`Running::fetched`]).  The first error ends it: what follows is not asked any more, and the step says so.

use std::sync::Arc;

use super::attention::{Attend, Gate, HeadNorm, Heads, PageFormat, Store};
use super::delta::{Convolve, GatedNorm, Rates, Recur, Untangle};
use super::device::CudaError;
use super::experts::{Combine, Group, Route, units};
use super::inputs::Inputs;
use super::memory::{Plain, Slice};
use super::products::{Form, Input, Matrices, Work, gated, product};
use super::queue::Queue;
use super::rows::{Each, GateRows, Norm, Rows};
use super::scratch::Scratch;
use super::slots::Slots;
use super::tensors::Tensors;
use crate::bank::Arena;
use crate::kernels::Matrix;
use crate::model::Model;
use crate::parts;
use crate::parts::{DeltaNet, Dense, Linear, Mixed, Pairing, Routed, Shared};
use crate::run::{Rows as Register, Run};
use crate::step::Step;

/// Rows up to which the context is read in pieces side by side: more keep the device busy by themselves.
const APART: usize = 16;

/// What a routed layer did with the rows, on the device: [layers, most rows, top_k] each, and [layers, most rows].
#[derive(Clone, Copy)]
pub(super) struct Taps<'r> {
    pub ids: Slice<'r, i32>,
    pub gates: Slice<'r, f32>,
    pub norms: Slice<'r, f32>,
    pub full_ids: Slice<'r, i32>,
    pub full_gates: Slice<'r, f32>,
    pub missing: Slice<'r, f32>,
}

/// A step under way.
pub(super) struct Running<'r, 'a, 'b> {
    pub queue: &'r Arc<Queue>,
    pub arena: &'r Arena<Slots>,
    pub model: &'r Model,
    pub step: &'r mut Step<'a, 'b>,
    pub inputs: &'r Inputs<'r>,
    pub tensors: &'r mut Tensors,
    pub scratch: &'r mut Scratch,
    /// [layers, experts], where slots begin.
    pub table: Slice<'r, u64>,
    pub taps: Taps<'r>,
    /// Lengths of what experts give are wanted.
    pub norms: bool,
    /// All that rows may choose is in memory.
    pub all_there: bool,
    pub failed: Option<CudaError>,
}

impl<'r> Running<'r, '_, '_> {
    fn dim(&self) -> usize {
        self.model.shape().dim
    }

    /// Does something unless something failed before.
    fn attempt(&mut self, what: impl FnOnce(&mut Self) -> Result<(), CudaError>) {
        if self.failed.is_none() {
            self.failed = what(self).err();
        }
    }

    /// Rows that `what` fills.
    fn make(
        &mut self,
        what: impl FnOnce(&mut Self, Slice<'r, f32>) -> Result<(), CudaError>,
    ) -> Register {
        match self.scratch.take() {
            Ok(register) => {
                let out = self.scratch.rows(&register);
                self.attempt(|run| what(run, out));
                register
            }
            Err(error) => {
                self.failed.get_or_insert(error);
                Register(usize::MAX)
            }
        }
    }

    fn room<T: Plain>(
        &mut self,
        name: &'static str,
        len: usize,
    ) -> Result<Slice<'r, T>, CudaError> {
        self.scratch.room(name, len)
    }

    /// `out = w x`, of matrices that read the same rows; each with the room for its output.
    fn products(
        &mut self,
        of: &[(&Linear, Slice<'r, f32>)],
        x: Slice<'r, f32>,
        rows: Rows<'r>,
    ) -> Result<(), CudaError> {
        let mut input: Option<(Form, Input<'r>)> = None;
        for &(linear, out) in of {
            let (w, form) = (self.tensors.linear(linear)?, linear.weight.form());
            let input = match input {
                Some((there, input)) if there == form => input,
                _ => input.insert((form, self.input(form, (x, w.k), rows)?)).1,
            };
            // SAFETY: the matrix is a tensor of the device, and all rows are read.
            unsafe { product(self.queue, &w, input, Work::Rows(rows), out)? };
        }
        Ok(())
    }

    fn input(
        &mut self,
        form: Form,
        x: (Slice<'r, f32>, usize),
        rows: Rows<'_>,
    ) -> Result<Input<'r>, CudaError> {
        self.scratch.input(self.queue, form, x, rows)
    }

    /// `down(act(gate x, up x))`
    fn feed(
        &mut self,
        dense: &Dense,
        x: Slice<'r, f32>,
        out: Slice<'r, f32>,
    ) -> Result<(), CudaError> {
        let (ff, rows) = (dense.gate.weight.rows, self.inputs.rows);
        let hidden = self.room("hidden", rows.most * ff)?;
        let (gate, up) = (self.tensors.linear(&dense.gate)?, self.tensors.linear(&dense.up)?);
        if gate.kind == up.kind {
            let input = self.input(dense.gate.weight.form(), (x, gate.k), rows)?;
            // SAFETY: tensors of the device, of one shape and format.
            unsafe {
                let work = Work::Rows(rows);
                gated(self.queue, [&gate, &up], dense.activation, input, work, hidden)?;
            }
        } else {
            let ups = self.room("ups", rows.most * ff)?;
            self.products(&[(&dense.gate, hidden), (&dense.up, ups)], x, rows)?;
            let both = Each { x: hidden, out: hidden, rows, dim: ff };
            both.activated(self.queue, ups, dense.activation)?;
        }
        self.products(&[(&dense.down, out)], hidden, rows)
    }

    fn attend(
        &mut self,
        part: &parts::Attention,
        x: Slice<'r, f32>,
        out: Slice<'r, f32>,
    ) -> Result<(), CudaError> {
        let (rows, size, queue) = (self.inputs.rows, self.inputs.size, self.queue);
        let (heads, kv_heads, hd) = (part.heads, part.kv_heads, part.head_dim);
        let (q_dim, kv_dim) = (part.q.weight.rows, kv_heads * hd);
        let rotations = Some(self.inputs.rotations[part.rope]);
        let q = self.room("q", rows.most * q_dim)?;
        let turned = self.room("turned q", rows.most * heads * hd)?;
        let (k, v) = (self.room("k", rows.most * kv_dim)?, self.room("v", rows.most * kv_dim)?);
        let mut of = vec![(&part.q, q)];
        of.extend(part.k.as_ref().map(|linear| (linear, k)));
        of.extend(part.v.as_ref().map(|linear| (linear, v)));
        self.products(&of, x, rows)?;
        let places = self.inputs.places(self.step.segments[0].pages.place(part.store));
        let precision = self.step.segments[0].pages.format(part.store).precision;
        let format = PageFormat { precision, kv_heads, head_dim: hd };
        let head = if part.gated { 2 * hd } else { hd };
        let (q_norm, eps) = (self.head_norm(&part.q_norm)?, part.norm_eps);
        let queries = Heads {
            x: q,
            row: q_dim,
            head,
            heads,
            head_dim: hd,
            norm: q_norm,
            eps,
            rotations,
            out: turned,
            out_row: heads * hd,
            rows,
        };
        queries.launch(queue)?;
        if part.k.is_some() {
            let keys = self.room("turned k", rows.most * kv_dim)?;
            let plain = Heads {
                x: k,
                row: kv_dim,
                head: hd,
                heads: kv_heads,
                head_dim: hd,
                norm: self.head_norm(&part.k_norm)?,
                eps,
                rotations,
                out: keys,
                out_row: kv_dim,
                rows,
            };
            plain.launch(queue)?;
            // Without values of its own they are the keys as they were.
            let raw = if part.v.is_some() { v } else { k };
            if part.v_norm {
                let norm = HeadNorm::Unit;
                Heads { x: raw, norm, rotations: None, out: v, ..plain }.launch(queue)?;
            }
            let values = if part.v_norm { v } else { raw };
            // SAFETY: pages of the format were reserved for all rows.
            unsafe { Store { format, keys, values, places, rows }.launch(queue)? };
        }
        let answers = self.room("answers", rows.most * heads * hd)?;
        let sinks = part.sinks.as_ref().map(|sinks| self.tensors.vector(sinks)).transpose()?;
        let gate = part.gated.then(|| {
            let x = q.range(hd.min(q.len())..q.len());
            Gate { x, row: q_dim, head }
        });
        let attend = Attend {
            format,
            q: turned,
            heads,
            scale: part.scale,
            window: part.window,
            sinks,
            gate,
            places,
            out: answers,
            rows,
        };
        // SAFETY: pages hold what rows see, their own tokens since the store above.
        unsafe {
            if rows.most <= APART {
                let room = self.room("pieces", attend.room(size.context))?;
                attend.launch_apart(queue, size.context, room)?;
            } else {
                attend.launch(queue)?;
            }
        }
        self.products(&[(&part.o, out)], answers, rows)
    }

    fn head_norm(&mut self, norm: &Option<parts::HeadNorm>) -> Result<HeadNorm<'r>, CudaError> {
        Ok(match norm {
            None => HeadNorm::None,
            Some(parts::HeadNorm::Each(weight)) => HeadNorm::Each(self.tensors.vector(weight)?),
            Some(parts::HeadNorm::Together(weight)) => {
                HeadNorm::Together(self.tensors.vector(weight)?)
            }
        })
    }

    fn recur(
        &mut self,
        part: &DeltaNet,
        layer: usize,
        x: Slice<'r, f32>,
        out: Slice<'r, f32>,
    ) -> Result<(), CudaError> {
        let (rows, queue) = (self.inputs.rows, self.queue);
        let (hd, channels, share) =
            (part.head_dim, part.channels(), part.value_heads / part.key_heads);
        let value_dim = part.value_heads * hd;
        let Some(stretches) = self.inputs.stretches(layer) else { return Ok(()) };
        let qkv = self.room("qkv", rows.most * channels)?;
        let z = self.room("z", rows.most * value_dim)?;
        match &part.mixed {
            Mixed::Apart { qkv: to_qkv, z: to_z } => {
                self.products(&[(to_qkv, qkv), (to_z, z)], x, rows)?;
            }
            Mixed::Together(all) => {
                let mixed = self.room("mixed", rows.most * all.weight.rows)?;
                self.products(&[(all, mixed)], x, rows)?;
                let key_heads = part.key_heads;
                Untangle { all: mixed, key_heads, share, head_dim: hd, qkv, z, rows }
                    .launch(queue)?;
            }
        }
        let heads = part.value_heads;
        let both = self.room("rates", rows.most * 2 * heads)?;
        // Betas and alphas of a head of keys lie side by side, or all betas before all alphas.
        let (betas, alphas, row, group) = match &part.rates {
            parts::Rates::Apart { beta, alpha } => {
                let (betas, alphas) = (
                    both.range(0..rows.most * heads),
                    both.range(rows.most * heads..2 * rows.most * heads),
                );
                self.products(&[(beta, betas), (alpha, alphas)], x, rows)?;
                (betas, alphas, heads, share)
            }
            parts::Rates::Together(linear) => {
                self.products(&[(linear, both)], x, rows)?;
                (both, both.range(share..both.len()), 2 * heads, 2 * share)
            }
        };
        let beta = self.room("beta", rows.most * heads)?;
        let decay = self.room("decay", rows.most * heads)?;
        let (dt, a) = (self.tensors.vector(&part.dt)?, self.tensors.vector(&part.a)?);
        Rates { betas, alphas, row, group, share, dt, a, beta, decay, rows }.launch(queue)?;
        let (kernel, count) = (self.tensors.vector(&part.conv)?, self.inputs.stretch_count);
        let convolved = self.room("convolved", rows.most * channels)?;
        let convolve = Convolve {
            x: qkv,
            channels,
            taps: part.taps,
            kernel,
            stretches,
            count,
            stretch_of: self.inputs.stretch_of,
            out: convolved,
            rows,
        };
        // SAFETY: states are those of the step's sequences, each its own.
        unsafe { convolve.launch(queue)? };
        // Queries and keys, which lie before the values, are brought to length one in place.
        let keys = Heads {
            x: convolved,
            row: channels,
            head: hd,
            heads: 2 * part.key_heads,
            head_dim: hd,
            norm: HeadNorm::Length,
            eps: part.eps,
            rotations: None,
            out: convolved,
            out_row: channels,
            rows,
        };
        keys.launch(queue)?;
        let answers = self.room("answers", rows.most * value_dim)?;
        let recur = Recur {
            qkv: convolved,
            beta,
            decay,
            stretches,
            count,
            key_heads: part.key_heads,
            value_heads: heads,
            head_dim: hd,
            in_turn: part.pairing == Pairing::InTurn,
            past: (part.taps - 1) * channels,
            out: answers,
            rows: rows.most,
        };
        // SAFETY: as above.
        unsafe { recur.launch(queue)? };
        let weight = self.tensors.vector(&part.norm)?;
        GatedNorm { x: answers, z, weight, heads, eps: part.eps, out: answers, rows }
            .launch(queue)?;
        self.products(&[(&part.out, out)], answers, rows)
    }

    fn mix(
        &mut self,
        part: &Routed,
        layer: usize,
        router: Slice<'r, f32>,
        x: Slice<'r, f32>,
        out: Slice<'r, f32>,
    ) -> Result<(), CudaError> {
        let (rows, pairs, queue) = (self.inputs.rows, self.inputs.pairs, self.queue);
        let (experts, top_k) = (part.experts.len(), part.top_k);
        let logits = self.room("router", rows.most * experts)?;
        self.products(&[(&part.router, logits)], router, rows)?;
        let of_layer = |each: usize| layer * each..(layer + 1) * each;
        let ranks = of_layer(pairs.most);
        let taps = self.taps;
        let (ids, gates) = (taps.ids.range(ranks.clone()), taps.gates.range(ranks.clone()));
        let route = Route {
            logits,
            experts,
            top_k,
            gates_are: part.gates,
            masks: Some(self.inputs.masks(layer)),
            ids,
            gates,
            full_ids: taps.full_ids.range(ranks.clone()),
            full_gates: taps.full_gates.range(ranks.clone()),
            missing: taps.missing.range(of_layer(rows.most)),
            rows,
        };
        // SAFETY: masks are as long as the model's.
        unsafe { route.launch(queue)? };
        let slots = match self.all_there {
            true => self.table.range(of_layer(experts)),
            false => self.fetched(part, layer, ids)?,
        };
        let place = self.room("place", pairs.most)?;
        let picks = self.room("expert picks", pairs.most)?;
        let most = units(pairs.most, experts);
        let (list, count) = (self.room("units", most)?, self.room("unit count", 1)?);
        Group { ids, experts, top_k, place, picks, units: list, count, rows }.launch(queue)?;

        let first = &part.experts[0];
        let (ff, outputs) = (first.gate.rows, pairs.most);
        let hidden = self.room("hidden", outputs * ff)?;
        let bias = |run: &mut Self, at: usize| -> Result<_, CudaError> {
            let Some(bias) = &first.bias[at] else { return Ok(None) };
            let all = || part.experts.iter().flat_map(|e| e.bias[at].clone().unwrap_or_default());
            run.tensors.made(bias.as_ptr() as usize, || all().collect()).map(Some)
        };
        let matrices = |run: &mut Self, w: &Matrix, bias| {
            let (offset, kind) = (run.offset(part, layer, w), w.kind());
            Matrices { kind, rows: w.rows, k: w.k, slots, offset, bias }
        };
        let (gate_bias, up_bias) = (bias(self, 0)?, bias(self, 1)?);
        let gate = matrices(self, &first.gate, gate_bias);
        let up = matrices(self, &first.up, up_bias);
        let down = matrices(self, &first.down, None);
        let work = Work::Units { units: list, count, picks: Some(picks), outputs };
        let input = self.input(first.gate.form(), (x, gate.k), rows)?;
        // SAFETY: slots hold the experts that rows chose, and picks are rows.
        unsafe {
            if gate.kind == up.kind {
                gated(queue, [&gate, &up], part.activation, input, work, hidden)?;
            } else {
                let ups = self.room("ups", outputs * ff)?;
                product(queue, &gate, input, work, hidden)?;
                let input = self.input(first.up.form(), (x, up.k), rows)?;
                product(queue, &up, input, work, ups)?;
                let both = Each { x: hidden, out: hidden, rows: pairs, dim: ff };
                both.activated(queue, ups, part.activation)?;
            }
        }
        let made = self.room("made", outputs * down.rows)?;
        let input = self.input(first.down.form(), (hidden, down.k), pairs)?;
        // SAFETY: as above; activations lie as outputs do.
        unsafe {
            let work = Work::Units { units: list, count, picks: None, outputs };
            product(queue, &down, input, work, made)?;
        }
        let scales = match &first.scale {
            None => None,
            Some(scale) => {
                let all = || part.experts.iter().map(|e| e.scale.unwrap_or(1.0)).collect();
                Some(self.tensors.made(std::ptr::from_ref(scale) as usize, all)?)
            }
        };
        let combine = Combine {
            y: made,
            dim: down.rows,
            top_k,
            scales,
            bias: bias(self, 2)?,
            place,
            ids,
            rows,
        };
        // SAFETY: all are by expert, and places below the outputs.
        unsafe {
            combine.launch(queue, gates, out)?;
            if self.norms {
                combine.norms(queue, taps.norms.range(ranks))?;
            }
        }
        Ok(())
    }

    /// Where a matrix of a layer's experts begins within their slots.
    fn offset(&self, part: &Routed, layer: usize, w: &Matrix) -> u64 {
        let at = w.bytes().as_ptr() as usize;
        let (offsets, _) = self.arena.offsets(layer);
        let slices = part.experts[0].slices.iter().zip(offsets);
        let mut within = slices.filter_map(|(slice, offset)| {
            let bytes = slice.bytes();
            let start = bytes.as_ptr() as usize;
            (start..start + bytes.len()).contains(&at).then(|| (offset + at - start) as u64)
        });
        within.next().unwrap_or_default()
    }

    /// Makes all experts that rows chose be somewhere on the device: guests where the bank has room for them, others for
    /// as long as the layer takes.  Waits for the router.
    fn fetched(
        &mut self,
        part: &Routed,
        layer: usize,
        ids: Slice<'r, i32>,
    ) -> Result<Slice<'r, u64>, CudaError> {
        let (rows, top_k) = (self.step.rows(), part.top_k);
        let ids = self.queue.read(ids.range(0..rows * top_k))?;
        let experts = part.experts.len();
        let used = used(&ids, experts);
        let wish = |e: usize| {
            let chose = ids.iter().enumerate().filter(|(_, id)| **id as usize == e);
            self.step.wish(chose.map(|(i, _)| i / top_k))
        };
        let absent = self.step.experts.prepare(layer, &used, &wish);
        let all = self.arena.table();
        let mut slots = all[layer * experts..(layer + 1) * experts].to_vec();
        let lacking: Vec<usize> = used.iter().copied().filter(|&e| slots[e] == 0).collect();
        if !lacking.is_empty() {
            let (offsets, bytes) = self.arena.offsets(layer);
            // The copies of the layer before may still be read: what is written here is in order with that.
            let room: Slice<'r, u8> = self.room("staging", lacking.len() * bytes)?;
            for (i, &e) in lacking.iter().enumerate() {
                for (slice, offset) in part.experts[e].slices.iter().zip(&offsets) {
                    let at = i * bytes + offset;
                    let bytes = slice.bytes();
                    self.queue.write(room.range(at..at + bytes.len()), bytes)?;
                }
                slots[e] = room.address() + (i * bytes) as u64;
            }
        }
        self.arena.memory(Slots::arrived)?;
        let table = self.room("layer's slots", experts)?;
        self.queue.write(table, &slots)?;
        self.step.experts.passed(layer, &used, absent);
        Ok(table)
    }
}

/// Experts that are among `ids`, in order.
pub(super) fn used(ids: &[i32], experts: usize) -> Vec<usize> {
    let mut chosen = vec![false; experts];
    ids.iter().for_each(|&id| chosen[id as usize] = true);
    (0..experts).filter(|&e| chosen[e]).collect()
}

impl Run for Running<'_, '_, '_> {
    fn norm(&mut self, norm: &parts::Norm, x: &Register) -> Register {
        self.make(|run, out| {
            let (x, weight) = (run.scratch.rows(x), run.tensors.vector(&norm.weight)?);
            Norm { x, weight, out, rows: run.inputs.rows, eps: norm.eps }.launch(run.queue)
        })
    }

    fn add(&mut self, to: &Register, from: Register) {
        self.attempt(|run| {
            let (x, y) = (run.scratch.rows(to), run.scratch.rows(&from));
            Each { x, out: x, rows: run.inputs.rows, dim: run.dim() }.add(run.queue, y)
        });
        self.scratch.give_back(from);
    }

    fn scale(&mut self, x: &Register, by: f32) {
        self.attempt(|run| {
            let x = run.scratch.rows(x);
            Each { x, out: x, rows: run.inputs.rows, dim: run.dim() }.scale(run.queue, by)
        });
    }

    fn attention(&mut self, attention: &parts::Attention, normed: Register) -> Register {
        let out = self.make(|run, out| {
            let x = run.scratch.rows(&normed);
            run.attend(attention, x, out)
        });
        self.scratch.give_back(normed);
        out
    }

    fn delta(&mut self, delta: &DeltaNet, layer: usize, normed: Register) -> Register {
        let out = self.make(|run, out| {
            let x = run.scratch.rows(&normed);
            run.recur(delta, layer, x, out)
        });
        self.scratch.give_back(normed);
        out
    }

    fn dense(&mut self, dense: &Dense, normed: &Register) -> Register {
        self.make(|run, out| {
            let x = run.scratch.rows(normed);
            run.feed(dense, x, out)
        })
    }

    fn routed(
        &mut self,
        routed: &Routed,
        layer: usize,
        router: &Register,
        normed: &Register,
    ) -> Register {
        self.make(|run, out| {
            let (router, x) = (run.scratch.rows(router), run.scratch.rows(normed));
            run.mix(routed, layer, router, x, out)
        })
    }

    fn shared(&mut self, shared: &Shared, normed: &Register) -> Register {
        self.make(|run, out| {
            let x = run.scratch.rows(normed);
            run.feed(&shared.dense, x, out)?;
            let gate = run.tensors.vector(&shared.gate)?;
            GateRows { y: out, x, gate, out, rows: run.inputs.rows }.launch(run.queue)
        })
    }

    fn give_back(&mut self, rows: Register) {
        self.scratch.give_back(rows);
    }
}

//! A routed layer out of its kernels: experts in slots, recorded once, run for batches of any size.

use half::f16;

use super::*;
use crate::bank::DeviceMemory;
use crate::cuda::*;
use crate::ggml::Kind;
use crate::kernels::{self, Activation, Activations, Job, Product, matmul};
use crate::math;

const KIND: Kind = Kind::Q4_0;
const DOWN: Kind = Kind::Q8_0;
const EXPERTS: usize = 12;
const TOP_K: usize = 3;
const DIM: usize = 96;
const FF: usize = 64;
/// Two products whose sums run in another order, and activations rounded in between: a quant may fall on its other side.
const CLOSE: f32 = 5e-3;

fn weights(kind: Kind, rows: usize, k: usize, seed: u64) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let len = kind.bytes(k as u64).unwrap() as usize * rows;
    let mut bytes: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take(len).collect();
    for block in bytes.chunks_exact_mut(kind.block_bytes() as usize) {
        block[..2].copy_from_slice(&f16::from_f32(rng.f32() * 0.1).to_le_bytes());
    }
    bytes
}

/// Gate, up and down of an expert.
fn expert(e: usize) -> [Vec<u8>; 3] {
    let seed = 10 * e as u64;
    let (gate, up_) = (weights(KIND, FF, DIM, seed), weights(KIND, FF, DIM, seed + 1));
    [gate, up_, weights(DOWN, DIM, FF, seed + 2)]
}

/// Buffers of the layer for so many rows.
struct Layer {
    rows: usize,
    x: Buffer<f32>,
    count: Count,
    rounded: Rounded,
    ids: [Buffer<i32>; 2],
    gates: [Buffer<f32>; 2],
    missing: Buffer<f32>,
    logits: Buffer<f32>,
    place: Buffer<u32>,
    picks: Buffer<u32>,
    units: Buffer<Unit>,
    number: Buffer<u32>,
    hidden: Buffer<f32>,
    hidden_rounded: Rounded,
    pairs: Buffer<u32>,
    y: Buffer<f32>,
    out: Buffer<f32>,
    norms: Buffer<f32>,
}

impl Layer {
    fn new(q: &Queue, rows: usize) -> Layer {
        let (d, pairs) = (q.device(), rows * TOP_K);
        Layer {
            rows,
            x: blank(q, rows * DIM),
            count: Count::new(q, 0),
            rounded: Rounded::new(d, Form::Q8, rows, DIM).unwrap(),
            ids: [(); 2].map(|()| Buffer::new(d, pairs).unwrap()),
            gates: [(); 2].map(|()| blank(q, pairs)),
            missing: blank(q, rows),
            logits: blank(q, rows * EXPERTS),
            place: Buffer::new(d, pairs).unwrap(),
            picks: Buffer::new(d, pairs).unwrap(),
            units: Buffer::new(d, units(pairs, EXPERTS)).unwrap(),
            number: Buffer::new(d, 1).unwrap(),
            hidden: blank(q, pairs * FF),
            hidden_rounded: Rounded::new(d, Form::Q8, pairs, FF).unwrap(),
            pairs: Buffer::new(d, 1).unwrap(),
            y: blank(q, pairs * DIM),
            out: blank(q, rows * DIM),
            norms: blank(q, pairs),
        }
    }

    /// # Safety
    ///
    /// Router and slots hold the layer's matrices.
    unsafe fn ask(
        &self,
        q: &Queue,
        router: Slice<'_, u64>,
        slots: Slice<'_, u64>,
        offsets: [u64; 3],
    ) -> Result<(), CudaError> {
        let rows = self.count.of(self.rows);
        let pairs = Rows { most: self.rows * TOP_K, count: self.pairs.slice() };
        let shape =
            |kind, rows, k, slots, offset| Matrices { kind, rows, k, slots, offset, bias: None };
        let work = |picks| Work::Units {
            units: self.units.slice(),
            count: self.number.slice(),
            picks,
            outputs: self.rows * TOP_K,
        };
        // SAFETY: by the caller.
        unsafe {
            let w = shape(Kind::F32, EXPERTS, DIM, router, 0);
            let x = Input::floats(self.x.slice(), DIM);
            product(q, &w, x, Work::Rows(rows), self.logits.slice())?;
            let route = Route {
                logits: self.logits.slice(),
                experts: EXPERTS,
                top_k: TOP_K,
                gates_are: Gates::Renormalised,
                masks: None,
                ids: self.ids[0].slice(),
                gates: self.gates[0].slice(),
                full_ids: self.ids[1].slice(),
                full_gates: self.gates[1].slice(),
                missing: self.missing.slice(),
                rows,
            };
            route.launch(q)?;
            let group = Group {
                ids: self.ids[0].slice(),
                experts: EXPERTS,
                top_k: TOP_K,
                place: self.place.slice(),
                picks: self.picks.slice(),
                units: self.units.slice(),
                count: self.number.slice(),
                rows,
            };
            group.launch(q)?;
            self.rounded.round(q, self.x.slice(), rows)?;
            let gate = shape(KIND, FF, DIM, slots, offsets[0]);
            let up_ = shape(KIND, FF, DIM, slots, offsets[1]);
            let picked = work(Some(self.picks.slice()));
            let x = self.rounded.input();
            gated(q, [&gate, &up_], Activation::Silu, x, picked, self.hidden.slice())?;
            self.hidden_rounded.round(q, self.hidden.slice(), pairs)?;
            let down = shape(DOWN, DIM, FF, slots, offsets[2]);
            product(q, &down, self.hidden_rounded.input(), work(None), self.y.slice())?;
            let combine = Combine {
                y: self.y.slice(),
                dim: DIM,
                top_k: TOP_K,
                scales: None,
                bias: None,
                place: self.place.slice(),
                ids: self.ids[0].slice(),
                rows,
            };
            combine.launch(q, self.gates[0].slice(), self.out.slice())?;
            combine.norms(q, self.norms.slice())
        }
    }
}

/// The CPU's numbers for one row, by the experts that the device chose: [dim].
fn reference(experts: &[[Vec<u8>; 3]], x: &[f32], ids: &[i32], gates: &[f32]) -> Vec<f32> {
    let mut out = vec![0f32; DIM];
    for (&e, gate) in ids.iter().zip(gates) {
        let [g, u, d] = &experts[e as usize];
        let w = [matrix(g, KIND, FF, DIM), matrix(u, KIND, FF, DIM)];
        let mut x = Activations::new(x, DIM);
        x.prepare_for(&w[0]);
        let mut hidden = vec![0f32; FF];
        kernels::compute([Job::Gated(kernels::Gated {
            w: [&w[0], &w[1]],
            bias: [None; 2],
            activation: Activation::Silu,
            x: &x,
            picks: &[0],
            out: &mut hidden,
        })]);
        let (mut y, down) = (vec![0f32; DIM], matrix(d, DOWN, DIM, FF));
        let mut hidden = Activations::new(&hidden, FF);
        hidden.prepare_for(&down);
        kernels::compute([Job::Product(Product {
            w: &down,
            x: &hidden,
            picks: &[0],
            out: &mut y,
        })]);
        math::add_scaled(&mut out, *gate, &y);
    }
    out
}

#[test]
fn one_graph_serves_batches_of_any_size() {
    let q = Arc::new(queue());
    let experts: Vec<[Vec<u8>; 3]> = (0..EXPERTS).map(expert).collect();
    let sizes = [0, 1, 2].map(|i| experts[0][i].len().next_multiple_of(256));
    let offsets = [0, sizes[0], sizes[0] + sizes[1]].map(|o| o as u64);
    let mut memory = Slots::new(&q, 1 << 20).unwrap();
    let mut table = Vec::new();
    for slices in &experts {
        let slot = memory.reserve(sizes.iter().sum()).unwrap();
        for (slice, offset) in slices.iter().zip(offsets) {
            memory.copy_in(slot + offset as usize, slice);
        }
        table.push(slot as u64);
    }
    memory.arrived().unwrap();
    let slots = up(&q, &table);
    let router = noise(EXPERTS * DIM, 77);
    let router_at = up(&q, &router);
    let router_slot = up(&q, &[router_at.slice().address()]);

    let most = 20;
    let layer = Layer::new(&q, most);
    // SAFETY: matrices lie there for as long as the graph runs.
    let graph = q.record(|| unsafe { layer.ask(&q, router_slot.slice(), slots.slice(), offsets) });
    let graph = graph.unwrap();
    let x = noise(most * DIM, 5);
    let run = |x: &[f32]| {
        let rows = x.len() / DIM;
        q.write(layer.x.slice(), x).unwrap();
        q.write(layer.count.0.slice(), &[rows as u32]).unwrap();
        q.write(layer.pairs.slice(), &[(rows * TOP_K) as u32]).unwrap();
        q.run(&graph).unwrap();
        q.read(layer.out.slice().range(0..rows * DIM)).unwrap()
    };
    let all = run(&x);
    let (ids, gates) =
        (q.read(layer.ids[0].slice()).unwrap(), q.read(layer.gates[0].slice()).unwrap());
    let mut logits = vec![0f32; most * EXPERTS];
    let bytes: Vec<u8> = router.iter().flat_map(|v| v.to_le_bytes()).collect();
    let router = matrix(&bytes, Kind::F32, EXPERTS, DIM);
    matmul(&router, &mut Activations::new(&x, DIM), &mut logits);
    close(&q.read(layer.logits.slice()).unwrap(), &logits, 1e-6, "logits");
    for (row, x) in x.chunks(DIM).enumerate() {
        let of = row * TOP_K..(row + 1) * TOP_K;
        let (ids, gates) = (&ids[of.clone()], &gates[of]);
        let got = &all[row * DIM..(row + 1) * DIM];
        close(got, &reference(&experts, x, ids, gates), CLOSE, "the layer");
        // Alone, and with others.
        assert_eq!(bits(&run(x)), bits(got), "row {row} alone");
    }
    assert_eq!(bits(&run(&x[3 * DIM..12 * DIM])), bits(&all[3 * DIM..12 * DIM]));

    // An expert that leaves shows: nothing of what it was is left in the answer.
    let gone = ids[0] as usize;
    q.write(slots.slice().range(gone..gone + 1), &[0]).unwrap();
    assert!(run(&x[..DIM]).iter().all(|v| v.is_nan()));
}

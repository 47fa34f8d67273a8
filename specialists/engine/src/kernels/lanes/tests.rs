//! Every operation by every set of this processor: the bits that plain Rust gives.

use super::*;

/// As many of each kind as there are halves, so that all of these are among them.
const COUNT: usize = 1 << 16;
/// Bytes from one row to the next, aligned to nothing.
const STRIDE: usize = 3;

/// What operations are tested with, within what each of them takes.
struct Numbers {
    any: [Vec<i32>; 3],
    /// Unsigned and below 128.
    small: Vec<i32>,
    /// Signed and above -128.
    signed: Vec<i32>,
    /// Below 16.
    places: Vec<i32>,
    /// Signed halves above -32768.
    pairs: [Vec<i32>; 2],
    /// Each half once, below something else.
    halves: Vec<i32>,
    /// Finite.
    floats: [Vec<f32>; 3],
    /// To be loaded from the second on, so from odd addresses.
    bytes: Vec<u8>,
    /// BF16, likewise; what is no number is quiet.
    brains: Vec<u8>,
}

impl Numbers {
    fn new() -> Numbers {
        let mut rng = fastrand::Rng::with_seed(1);
        // Registers are loaded as the first four of sixteen bytes.
        let mut of = |f: &dyn Fn(i32) -> i32| -> Vec<i32> {
            std::iter::repeat_with(|| f(rng.i32(..))).take(COUNT + 3).collect()
        };
        let bytes = |v: i32, least: i8| {
            i32::from_le_bytes(v.to_le_bytes().map(|b| (b as i8).max(least) as u8))
        };
        let two = |v: i32| {
            let (low, high) = ((v as i16).max(-32767), ((v >> 16) as i16).max(-32767));
            i32::from(high) << 16 | i32::from(low as u16)
        };
        let float = |v: &i32| {
            let number = f32::from_bits(*v as u32);
            if number.is_finite() { number } else { f32::from_bits(number.to_bits() & 0x807f_ffff) }
        };
        let numbers = |v: Vec<i32>| v.iter().map(float).collect();
        let brain = |v: &i32| {
            let bits = *v as u16;
            if bits & 0x7fff > 0x7f80 { bits | 0x40 } else { bits }
        };
        Numbers {
            any: [of(&|v| v), of(&|v| v), of(&|v| v)],
            small: of(&|v| v & 0x7f7f_7f7f),
            signed: of(&|v| bytes(v, -127)),
            places: of(&|v| v & 0x0f0f_0f0f),
            pairs: [of(&two), of(&two)],
            halves: of(&|v| v).iter().zip(0..).map(|(v, i)| v << 16 | i & 0xffff).collect(),
            floats: [numbers(of(&|v| v)), numbers(of(&|v| v)), numbers(of(&|v| v))],
            bytes: of(&|v| v).iter().flat_map(|v| v.to_le_bytes()).collect(),
            brains: std::iter::once(0)
                .chain(of(&|v| v).iter().flat_map(|v| brain(v).to_le_bytes()))
                .collect(),
        }
    }
}

struct Operations<'a>(&'a Numbers);

impl Work for Operations<'_> {
    /// What each operation gave.
    type Output = Vec<(&'static str, Vec<u32>)>;

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) -> Self::Output {
        let n = self.0;
        let floats = |name: &'static str, f: &dyn Fn(usize) -> L::F| {
            let mut out = vec![0f32; COUNT];
            for (i, out) in out.chunks_exact_mut(L::N).enumerate() {
                // SAFETY: a register's numbers.
                unsafe { l.store_f(out.as_mut_ptr(), f(i * L::N)) };
            }
            (name, out.iter().map(|v| v.to_bits()).collect::<Vec<u32>>())
        };
        let wholes = |name, f: &dyn Fn(usize) -> L::I| floats(name, &|i| l.as_float(f(i)));
        let rows = |start: *const u8, stride: usize| Rows { start, stride };
        // SAFETY: three more lie behind, so that each has sixteen bytes.
        let load = |v: &[i32], i: usize| unsafe { l.heads(rows(v[i..].as_ptr().cast(), 4)) };
        // SAFETY: a register's numbers.
        let load_f = |v: &[f32], i: usize| unsafe { l.load_f(v[i..].as_ptr()) };
        let [a, b, c] = n.any.each_ref().map(|v| move |i| load(v, i));
        let [p, q] = n.pairs.each_ref().map(|v| move |i| load(v, i));
        let [x, y, z] = n.floats.each_ref().map(|v| move |i| load_f(v, i));
        let small = |i| load(&n.small, i);
        let signed = |i| load(&n.signed, i);
        let at = |i: usize| n.bytes[1 + i..].as_ptr();
        let brains = |i: usize| n.brains[1 + 2 * i..].as_ptr();
        // SAFETY: the bytes are four times as many as there are places, and twelve more.
        let quad = |i, of: usize| unsafe { l.quads(rows(at(STRIDE * i), STRIDE))[of] };
        let table = [9, 200, 3, 255, 0, 17, 1, 128, 127, 5, 66, 77, 88, 99, 250, 31];
        // Less what `signed` made the weights larger by, times the sum of the other side.
        let less = |y| {
            let sum = l.dot(l.splat(0), l.splat(0x0101_0101), y);
            l.mul(sum, l.splat(L::SIGNED_OFFSET))
        };
        l.prefetch(std::ptr::null());
        l.prefetch(at(0));
        vec![
            wholes("splat", &|i| l.splat(n.any[0][i / MOST])),
            wholes("and", &|i| l.and(a(i), b(i))),
            wholes("or", &|i| l.or(a(i), b(i))),
            wholes("xor", &|i| l.xor(a(i), b(i))),
            wholes("add", &|i| l.add(a(i), b(i))),
            wholes("sub", &|i| l.sub(a(i), b(i))),
            wholes("mul", &|i| l.mul(a(i), b(i))),
            wholes("max", &|i| l.max(a(i), b(i))),
            wholes("shl", &|i| l.shl(a(i), (i / MOST % 32) as u32)),
            wholes("shr", &|i| l.shr(a(i), (i / MOST % 32) as u32)),
            wholes("lookup", &|i| l.lookup(&table, load(&n.places, i))),
            wholes("dot", &|i| l.dot(c(i), small(i), signed(i))),
            wholes("dot_signed", &|i| {
                let dots = l.dot_signed(c(i), l.signed(a(i)), signed(i));
                l.sub(dots, less(signed(i)))
            }),
            wholes("pairs", &|i| l.pairs(c(i), p(i), q(i))),
            floats("float", &|i| l.float(a(i))),
            floats("half", &|i| l.half(load(&n.halves, i))),
            floats("splat_f", &|i| l.splat_f(n.floats[0][i / MOST])),
            floats("add_f", &|i| l.add_f(x(i), y(i))),
            floats("mul_f", &|i| l.mul_f(x(i), y(i))),
            floats("fma", &|i| l.fma(x(i), y(i), z(i))),
            // SAFETY: within the bytes, here and in the next two.
            floats("load_half", &|i| unsafe { l.load_half(at(2 * i).cast()) }),
            // SAFETY: see above.
            floats("load_brain", &|i| unsafe { l.load_brain(brains(i).cast()) }),
            // SAFETY: see above.
            wholes("load_bytes", &|i| unsafe { l.load_bytes(at(i).cast()) }),
            wholes("quads", &|i| quad(i, 0)),
            wholes("quads", &|i| quad(i, 1)),
            wholes("quads", &|i| quad(i, 2)),
            wholes("quads", &|i| quad(i, 3)),
        ]
    }
}

#[test]
fn operations_give_the_bits_of_plain_rust() {
    let numbers = Numbers::new();
    let want = run_with(Set::PlainSixteen, Operations(&numbers));
    for set in Set::all() {
        for ((name, got), (_, want)) in run_with(set, Operations(&numbers)).iter().zip(&want) {
            let wrong = got.iter().zip(want).position(|(got, want)| got != want);
            assert_eq!(wrong.map(|i| (got[i], want[i])), None, "{set:?} {name} at {wrong:?}");
        }
    }
}

/// What rows one after the other are made of: 64 bytes from two places, shifted apart, times as many and sixteen scales.
struct Strips<'a>(&'a Numbers);

impl Work for Strips<'_> {
    /// Sums that do not depend on how many lanes they were in: of products, weights, scales and halves.
    type Output = Vec<[i32; 4]>;

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) -> Self::Output {
        let bytes = |at: usize, i: usize| {
            let at = self.0.bytes[at + 2 * L::N * i..].as_ptr();
            // SAFETY: 32 bytes of each place are within the bytes.
            unsafe { l.halves(at, at.wrapping_add(40)) }
        };
        let strip = |n: usize| {
            let six = self.0.any.each_ref().map(|any| any[n] as u32);
            let small = match n % 2 {
                0 => l.small_of_six_bits(six),
                _ => l.small([six[0], six[1], six[2], six[0] ^ 0x55]),
            };
            let first = n % 4 * 4;
            let of = [first, first + 1, first + 3, first + 2];
            // SAFETY: sixteen halves are within the bytes.
            let weighed = unsafe { l.weigh(small, self.0.bytes[n..].as_ptr().cast()) };
            let mut sums = [l.splat(0), l.splat(0), l.splat(0), weighed];
            for i in 0..16 / L::N {
                let (a, b) = (n as u32 % 3, n as u32 % 5);
                let w = l.and(l.shr_two(bytes(n, i), a, b), l.splat(0x7f7f_7f7f));
                // Above -128.
                let y = l.and(bytes(n + 7, i), l.splat(0x3f3f_3f3f));
                sums[0] = l.scaled(sums[0], w, y, l.scales(small, of, i));
                sums[1] = l.add(sums[1], w);
                sums[2] = l.add(sums[2], l.scales(small, of, i));
            }
            l.totals(sums)
        };
        (0..1000).map(strip).collect()
    }
}

#[test]
fn strips_are_the_same_by_every_set() {
    let numbers = Numbers::new();
    let want = run_with(Set::PlainSixteen, Strips(&numbers));
    // One lane has no halves.
    for set in Set::all().into_iter().filter(|set| *set != Set::One) {
        assert_eq!(run_with(set, Strips(&numbers)), want, "{set:?}");
    }
}

/// Sums of sixteen floats, in halves, whatever the registers.
struct Totals<'a>(&'a Numbers);

impl Work for Totals<'_> {
    type Output = Vec<[u32; 4]>;

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) -> Self::Output {
        let totals = |n: usize| {
            let four = [n, n + 3, 2 * n, 2 * n + 5].map(|at| {
                let mut parts: Vec<L::F> = (at..at + MOST)
                    .step_by(L::N)
                    // SAFETY: a register's numbers.
                    .map(|at| unsafe { l.load_f(self.0.floats[0][at..].as_ptr()) })
                    .collect();
                while parts.len() > 1 {
                    let half = parts.len() / 2;
                    parts = (0..half).map(|i| l.add_f(parts[i], parts[i + half])).collect();
                }
                parts[0]
            });
            l.totals_f(four).map(f32::to_bits)
        };
        (0..400).map(totals).collect()
    }
}

#[test]
fn totals_are_the_same_by_every_set() {
    let numbers = Numbers::new();
    let want = run_with(Set::PlainSixteen, Totals(&numbers));
    for set in Set::all() {
        assert_eq!(run_with(set, Totals(&numbers)), want, "{set:?}");
    }
}

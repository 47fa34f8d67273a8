//! What each item of a corpus asked of the router: so that it can be seen whether all ask for the same.

/// Bytes that the items of one profile may take.  As many as are needed to find the parts of a domain: 64 MiB are
/// 2,700 items of 48 layers of 128 experts.
const MOST_BYTES: usize = 64 << 20;

/// What items used.  There is a bound: where it is reached every second item goes, and from then on only every second
/// one comes, so that those that are kept are spread evenly over what was read, and are the same ones every time.
#[derive(Clone, Debug, PartialEq)]
pub struct Signatures {
    /// [items], the line of the corpus that it is on, from 1.
    pub items: Vec<i64>,
    /// [items, layers, experts], the sum of the gate over the item's tokens, as it is: divided by its sum over a layer's
    /// experts it is the share of each.
    pub mass: Vec<f32>,
    /// Items that were read, with those that were not kept.
    pub seen: u64,
    /// One in so many was kept.
    pub every: u64,
}

impl Default for Signatures {
    fn default() -> Self {
        Signatures { items: Vec::new(), mass: Vec::new(), seen: 0, every: 1 }
    }
}

impl Signatures {
    /// Items that there is room for, of so many layers times experts.
    pub fn room(width: usize) -> usize {
        (MOST_BYTES / size_of::<f32>() / width.max(1)).max(2)
    }

    /// Adds an item, or not, by what came before; `mass` is [layers, experts].
    pub fn push(&mut self, line: u64, mass: &[f32]) {
        self.push_within(Signatures::room(mass.len()), line, mass);
    }

    pub(super) fn push_within(&mut self, most: usize, line: u64, mass: &[f32]) {
        if self.due() && self.items.len() >= most {
            self.halve(mass.len());
        }
        if self.due() {
            self.items.push(i64::try_from(line).unwrap_or(i64::MAX));
            self.mass.extend(mass);
        }
        self.seen += 1;
    }

    /// Adds all items of another profile, then thins both alike; `width` is layers times experts.
    pub(super) fn append(&mut self, other: &Signatures, width: usize) {
        self.append_within(Signatures::room(width), other, width);
    }

    pub(super) fn append_within(&mut self, most: usize, other: &Signatures, width: usize) {
        self.items.extend(&other.items);
        self.mass.extend(&other.mass);
        self.seen = self.seen.saturating_add(other.seen);
        self.every = self.every.max(other.every);
        while self.items.len() > most {
            self.halve(width);
        }
    }

    fn due(&self) -> bool {
        self.seen.is_multiple_of(self.every)
    }

    /// Every second goes.
    fn halve(&mut self, width: usize) {
        self.items = self.items.iter().step_by(2).copied().collect();
        self.mass = self.mass.chunks(width.max(1)).step_by(2).flatten().copied().collect();
        self.every = self.every.saturating_mul(2);
    }
}

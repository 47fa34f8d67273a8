//! Items as points: what each asked of each layer.

use engine::Signatures;

/// Items that are compared with each other; the others go where they are nearest.  The work grows with the square, and
/// parts of a twentieth still have twenty items.
const COMPARED: usize = 384;

/// Items that used something.
pub(super) struct Items<'a> {
    lines: Vec<i64>,
    /// [layers, experts] of each, as it was measured.
    mass: Vec<&'a [f32]>,
    /// Layers that any item reached.
    layers: Vec<usize>,
    width: usize,
    experts: usize,
}

impl<'a> Items<'a> {
    pub fn of(signatures: &'a Signatures, layers: usize, experts: usize) -> Items<'a> {
        let width = layers * experts;
        let all = signatures.items.iter().zip(signatures.mass.chunks_exact(width.max(1)));
        let (lines, mass): (Vec<i64>, Vec<&[f32]>) =
            all.filter(|(_, mass)| mass.iter().any(|mass| *mass > 0.0)).unzip();
        let reached = |layer: &usize| {
            mass.iter().any(|m| m[layer * experts..][..experts].iter().any(|v| *v > 0.0))
        };
        let layers = (0..layers).filter(reached).collect();
        Items { lines, mass, layers, width, experts }
    }

    pub fn len(&self) -> usize {
        self.lines.len()
    }

    pub fn experts(&self) -> usize {
        self.experts
    }

    pub fn line(&self, item: usize) -> i64 {
        self.lines[item]
    }

    /// Those with experts that something reached.
    pub fn layers(&self) -> &[usize] {
        &self.layers
    }

    /// What an item asked of a layer.
    pub fn layer(&self, item: usize, layer: usize) -> &[f32] {
        &self.mass[item][layer * self.experts..][..self.experts]
    }

    /// Square roots of the shares of a layer's experts: their product is how alike two items are, 1 with themselves.
    pub fn roots(&self, item: usize, layer: usize) -> Vec<f32> {
        let mass = self.layer(item, layer);
        let sum: f32 = mass.iter().sum();
        let share = |mass: &f32| if sum > 0.0 { (mass / sum).sqrt() } else { 0.0 };
        mass.iter().map(share).collect()
    }

    /// Evenly spread items that are compared with each other.
    pub fn sample(&self) -> Vec<usize> {
        let count = self.len().min(COMPARED);
        (0..count).map(|at| at * self.len() / count).collect()
    }

    /// The sum of the gates of some items, as many as their tokens where gates add up to one.
    pub fn weight(&self, of: impl Fn(usize) -> bool) -> f64 {
        let items = self.mass.iter().enumerate().filter(|(item, _)| of(*item));
        items.flat_map(|(_, mass)| mass.iter()).map(|mass| f64::from(*mass)).sum()
    }

    /// What some items asked together, [layers, experts].
    pub fn sums(&self, of: impl Fn(usize) -> bool) -> Vec<f64> {
        let mut sums = vec![0.0; self.width];
        for (_, mass) in self.mass.iter().enumerate().filter(|(item, _)| of(*item)) {
            sums.iter_mut().zip(*mass).for_each(|(sum, mass)| *sum += f64::from(*mass));
        }
        sums
    }

    /// The same as shares of each layer.
    pub fn shares(&self, of: impl Fn(usize) -> bool) -> Vec<f64> {
        let mut sums = self.sums(of);
        for layer in sums.chunks_mut(self.experts.max(1)) {
            let all: f64 = layer.iter().sum();
            layer.iter_mut().for_each(|mass| *mass /= if all > 0.0 { all } else { 1.0 });
        }
        sums
    }

    /// The group of every item: that of a sampled one, and of another one the group whose middle is nearest.
    pub fn nearest(&self, sample: &[usize], of: &[usize]) -> Vec<usize> {
        let groups = of.iter().max().map_or(1, |most| most + 1);
        let mut own = vec![0; self.len()];
        sample.iter().zip(of).for_each(|(item, group)| own[*item] = *group);
        let members = sample.iter().copied().zip(of.iter().copied()).collect::<Vec<_>>();
        let middles = self.middles(&members, groups);
        let sampled: std::collections::HashSet<usize> = sample.iter().copied().collect();
        for item in (0..self.len()).filter(|item| !sampled.contains(item)) {
            own[item] = (0..groups)
                .map(|group| (group, self.distance(item, &middles[group])))
                .min_by(|a, b| a.1.total_cmp(&b.1))
                .map_or(0, |(group, _)| group);
        }
        own
    }

    /// Items of each group, those nearest to its middle first.
    pub fn typical(&self, part_of: &[usize], groups: usize) -> Vec<Vec<usize>> {
        let members: Vec<_> = part_of.iter().copied().enumerate().collect();
        let middles = self.middles(&members, groups);
        let of = |group: usize| {
            let own = (0..self.len()).filter(|item| part_of[*item] == group);
            let mut near: Vec<_> = own.map(|i| (self.distance(i, &middles[group]), i)).collect();
            near.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            near.into_iter().map(|(_, item)| item).collect()
        };
        (0..groups).map(of).collect()
    }

    /// Means of roots, [layers that were reached, experts] of each group.
    fn middles(&self, members: &[(usize, usize)], groups: usize) -> Vec<Vec<f32>> {
        let mut middles = vec![vec![0f32; self.layers.len() * self.experts]; groups];
        let mut sizes = vec![0f32; groups];
        for &(item, group) in members {
            sizes[group] += 1.0;
            let roots = self.layers.iter().flat_map(|layer| self.roots(item, *layer));
            middles[group].iter_mut().zip(roots).for_each(|(middle, root)| *middle += root);
        }
        for (middle, size) in middles.iter_mut().zip(sizes) {
            middle.iter_mut().for_each(|value| *value /= size.max(1.0));
        }
        middles
    }

    fn distance(&self, item: usize, middle: &[f32]) -> f32 {
        let roots = self.layers.iter().flat_map(|layer| self.roots(item, *layer));
        roots.zip(middle).map(|(root, middle)| (root - middle).powi(2)).sum()
    }
}

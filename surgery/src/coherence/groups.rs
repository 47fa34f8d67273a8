//! Items into groups, by how alike they are.

use super::MOST_PARTS;
use super::alike::Items;

/// Starts of which the best is taken, and steps that one may take; they rarely need ten.
const STARTS: usize = 8;
const STEPS: usize = 50;

/// How alike items are, in each layer: `[items, items]`, 0 to 1.
pub(super) struct Likeness {
    items: usize,
    layers: Vec<Vec<f32>>,
}

/// Items in groups.
pub(super) struct Groups {
    /// [items]
    pub of: Vec<usize>,
    /// Mean over items: how much nearer its own group is than the next, 1 at best (Rousseeuw 1987).
    pub silhouette: f64,
}

impl Likeness {
    pub fn of(items: &Items, sample: &[usize]) -> Likeness {
        let n = sample.len();
        let layer = |layer: &usize| {
            let roots: Vec<Vec<f32>> = sample.iter().map(|i| items.roots(*i, *layer)).collect();
            let mut alike = vec![0f32; n * n];
            for a in 0..n {
                for b in 0..=a {
                    let product = roots[a].iter().zip(&roots[b]).map(|(a, b)| a * b).sum();
                    (alike[a * n + b], alike[b * n + a]) = (product, product);
                }
            }
            alike
        };
        Likeness { items: n, layers: items.layers().iter().map(layer).collect() }
    }

    /// Over all layers, [items, items].
    pub fn mean(&self) -> Vec<f32> {
        let orders = vec![(0..self.items).collect(); self.layers.len()];
        self.mean_of(&orders)
    }

    /// The same of items put together from layers of others, so that no kinds of items are left.
    pub fn shuffled(&self, random: &mut fastrand::Rng) -> Vec<f32> {
        let order = |_: &Vec<f32>| {
            let mut order: Vec<usize> = (0..self.items).collect();
            random.shuffle(&mut order);
            order
        };
        let orders: Vec<Vec<usize>> = self.layers.iter().map(order).collect();
        self.mean_of(&orders)
    }

    fn mean_of(&self, orders: &[Vec<usize>]) -> Vec<f32> {
        let n = self.items;
        let mut mean = vec![0f32; n * n];
        for (layer, order) in self.layers.iter().zip(orders) {
            for (a, row) in mean.chunks_exact_mut(n).enumerate() {
                let from = &layer[order[a] * n..][..n];
                row.iter_mut().zip(order).for_each(|(sum, b)| *sum += from[*b]);
            }
        }
        let layers = self.layers.len().max(1) as f32;
        mean.iter_mut().for_each(|sum| *sum /= layers);
        mean
    }

    /// The number of groups with the best silhouette, none of them smaller than `smallest`.
    pub fn best(
        &self,
        alike: &[f32],
        smallest: usize,
        random: &mut fastrand::Rng,
    ) -> Option<Groups> {
        let n = self.items;
        let size = |of: &[usize], group: usize| of.iter().filter(|own| **own == group).count();
        let groups = (2..=MOST_PARTS.min(n / smallest.max(1))).filter_map(|count| {
            let starts = (0..STARTS).filter_map(|_| start(alike, n, count, random));
            let (of, _) = starts.min_by(|a, b| a.1.total_cmp(&b.1))?;
            let large = (0..count).all(|group| size(&of, group) >= smallest);
            large.then(|| Groups { silhouette: silhouette(alike, n, &of, count), of })
        });
        // Of equal ones the fewer groups.
        groups.fold(None, |best: Option<Groups>, next| match best {
            Some(best) if best.silhouette >= next.silhouette => Some(best),
            _ => Some(next),
        })
    }
}

/// Kernel k-means from one start (k-means++): the groups, and the sum of squared distances to their middles.  `None` if
/// a group was left empty.
fn start(
    alike: &[f32],
    n: usize,
    count: usize,
    random: &mut fastrand::Rng,
) -> Option<(Vec<usize>, f64)> {
    let far = |a: usize, b: usize| f64::from(1.0 - alike[a * n + b]).max(0.0);
    let mut centres = vec![random.usize(0..n)];
    while centres.len() < count {
        let near = |item: usize| centres.iter().map(|c| far(item, *c)).fold(f64::MAX, f64::min);
        let nearest: Vec<f64> = (0..n).map(near).collect();
        let mut left = random.f64() * nearest.iter().sum::<f64>();
        let drawn = nearest.iter().position(|far| {
            left -= far;
            left < 0.0
        });
        centres.push(drawn?);
    }
    let least = |distances: &mut dyn Iterator<Item = f64>| {
        distances.enumerate().min_by(|a, b| a.1.total_cmp(&b.1)).map_or(0, |(group, _)| group)
    };
    let mut of: Vec<usize> =
        (0..n).map(|item| least(&mut centres.iter().map(|centre| far(item, *centre)))).collect();
    let mut spread = f64::MAX;
    for _ in 0..STEPS {
        let (sums, sizes) = sums(alike, n, &of, count);
        if sizes.contains(&0.0) {
            return None;
        }
        let within: Vec<f64> = (0..count)
            .map(|g| (0..n).filter(|i| of[*i] == g).map(|i| sums[g][i]).sum::<f64>())
            .collect();
        let distance = |item: usize, g: usize| {
            1.0 - 2.0 * sums[g][item] / sizes[g] + within[g] / (sizes[g] * sizes[g])
        };
        spread = (0..n).map(|item| distance(item, of[item])).sum();
        let next: Vec<usize> =
            (0..n).map(|item| least(&mut (0..count).map(|g| distance(item, g)))).collect();
        if next == of {
            break;
        }
        of = next;
    }
    Some((of, spread))
}

/// For each group, how alike each item is to all of it together; and its size.
fn sums(alike: &[f32], n: usize, of: &[usize], count: usize) -> (Vec<Vec<f64>>, Vec<f64>) {
    let (mut sums, mut sizes) = (vec![vec![0.0; n]; count], vec![0.0; count]);
    for (row, group) in alike.chunks_exact(n).zip(of) {
        sizes[*group] += 1.0;
        sums[*group].iter_mut().zip(row).for_each(|(sum, alike)| *sum += f64::from(*alike));
    }
    (sums, sizes)
}

fn silhouette(alike: &[f32], n: usize, of: &[usize], count: usize) -> f64 {
    let (sums, sizes) = sums(alike, n, of, count);
    let of_item = |item: usize| {
        let own = of[item];
        if sizes[own] < 2.0 {
            return 0.0;
        }
        // Without itself, to which it is alike by 1.
        let itself = f64::from(alike[item * n + item]);
        let within = 1.0 - (sums[own][item] - itself) / (sizes[own] - 1.0);
        let others = (0..count).filter(|group| *group != own && sizes[*group] > 0.0);
        let next = others.map(|g| 1.0 - sums[g][item] / sizes[g]).fold(f64::MAX, f64::min);
        let larger = within.max(next);
        if larger > 0.0 { (next - within) / larger } else { 0.0 }
    };
    (0..n).map(of_item).sum::<f64>() / n.max(1) as f64
}

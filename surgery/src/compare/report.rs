//! Comparisons as Markdown, which a terminal shows as well.

use config::Bytes;

use super::Report;
use super::overlap::Pair;
use super::table::Correlations;

impl Report {
    /// Pairs, a triangle of their Jaccard, and the pool.
    pub fn to_markdown(&self) -> String {
        let mut text = String::new();
        if !self.pairs.is_empty() {
            text += &rows(
                &["", "", "Jaccard", "F", "F distinct", "cosine", "heterogeneity"],
                self.pairs.iter().map(pair),
            );
            text +=
                "\nOver all layers at once; distinct: without the experts that all of them have";
            text += &format!(" ({:.1} of a layer in the mean).\n\n", self.common);
        }
        if self.items.len() > 2 {
            text += &self.triangle();
            text += "\n";
        }
        let size = |bytes: Option<u64>| bytes.map_or("".to_owned(), |b| Bytes(b).to_string());
        text += &rows(
            &["in this order", "experts", "added", "added bytes"],
            self.pool.marginal.iter().map(|m| {
                vec![
                    m.name.clone(),
                    m.experts.to_string(),
                    m.added.to_string(),
                    size(m.added_bytes),
                ]
            }),
        );
        let (distinct, pool) = (&self.pool.distinct, &self.pool);
        let (least, most) = (distinct.iter().min(), distinct.iter().max());
        text += &format!(
            "\nTogether {} distinct experts, {} to {} of a layer{}; alone they would be {:.2} times as many.\n",
            pool.experts,
            least.unwrap_or(&0),
            most.unwrap_or(&0),
            pool.bytes.map_or(String::new(), |b| format!(", {}", Bytes(b))),
            pool.dedup
        );
        text
    }

    /// Jaccard of every two, each row against the columns before it.
    fn triangle(&self) -> String {
        let n = self.items.len();
        let (names, _) = self.items.split_at(n - 1);
        let head: Vec<&str> = ["Jaccard"].into_iter().chain(names.iter().map(|n| &n[..])).collect();
        // Pairs stand in the order (0, 1), (0, 2), … (1, 2), …
        let at = |a: usize, b: usize| a * n - a * (a + 1) / 2 + b - a - 1;
        let line = |b: usize| -> Vec<String> {
            let cell = |a: usize| match a < b {
                true => format!("{:.2}", self.pairs[at(a, b)].jaccard),
                false => String::new(),
            };
            [self.items[b].clone()].into_iter().chain((0..n - 1).map(cell)).collect()
        };
        rows(&head, (1..n).map(line))
    }
}

fn pair(pair: &Pair) -> Vec<String> {
    let Pair { first, second, jaccard, f, f_distinct, cosine, heterogeneity } = pair;
    let figures = [Some(*jaccard), Some(*f), *f_distinct, *cosine, *heterogeneity];
    let figures = figures.map(|figure| figure.map_or("–".to_owned(), |f| format!("{f:.3}")));
    [first.clone(), second.clone()].into_iter().chain(figures).collect()
}

impl Correlations {
    pub fn to_markdown(&self) -> String {
        let figure = |r: Option<f64>| r.map_or("–".to_owned(), |r| format!("{r:.4}"));
        let of = match &self.without {
            Some(visitor) => format!("{} rows, without the visitor {visitor}", self.n),
            None => format!("{} rows", self.n),
        };
        rows(
            &[&of, "Pearson", "Spearman"],
            self.pairs.iter().map(|c| {
                vec![format!("r({}, {})", c.first, c.second), figure(c.pearson), figure(c.spearman)]
            }),
        )
    }
}

/// A table; all columns but the first are numbers.
fn rows(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut text = format!("| {} |\n|", head.join(" | "));
    text += &head.iter().map(|_| " --- |").collect::<String>();
    text += "\n";
    for row in rows {
        // A name is a file's, and a line or a bar in it would be another row or column.
        let row: Vec<String> =
            row.iter().map(|cell| cell.replace(['|', '\n', '\r'], "_")).collect();
        text += &format!("| {} |\n", row.join(" | "));
    }
    text
}

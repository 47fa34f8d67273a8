//! Layer by expert: what a mask keeps, and where the tokens went.

use plotters::prelude::*;

use super::{Axes, Ink, LEVELS, axes, draw, failed};
use crate::report::{ReportError, numbers::short};

/// One mask's: kept experts are blue, dropped ones orange, the stronger the more of the layer's gate mass they have
/// (even use is the middle).  Without a profile kept is kept.
pub fn mask(
    title: &str,
    experts: usize,
    kept: &[Vec<u32>],
    mass: Option<&[Vec<f32>]>,
) -> Result<String, ReportError> {
    let level = |layer: usize, id: usize| {
        let share = mass.and_then(|mass| mass.get(layer)?.get(id)).copied();
        share.map(|share| by_use(f64::from(share) * experts as f64))
    };
    grid(title, experts, kept.len(), |layer, id| {
        let stays = kept[layer].binary_search(&(id as u32)).is_ok();
        match (stays, level(layer, id)) {
            (true, level) => Ink::Kept(level.unwrap_or(2)),
            (false, level) => Ink::Dropped(level.unwrap_or(0)),
        }
    })
}

/// How many of the masks keep each expert.
pub fn keepers(experts: usize, masks: &[&[Vec<u32>]]) -> Result<String, ReportError> {
    let layers = masks.iter().map(|kept| kept.len()).max().unwrap_or(0);
    let keep = |layer: usize, id: usize| {
        let has = |kept: &&&[Vec<u32>]| {
            kept.get(layer).is_some_and(|ids| ids.binary_search(&(id as u32)).is_ok())
        };
        masks.iter().filter(has).count()
    };
    grid("", experts, layers, |layer, id| match keep(layer, id) {
        0 => Ink::Dropped(0),
        n => Ink::Kept((n * LEVELS).div_ceil(masks.len()).saturating_sub(1)),
    })
}

/// Of use as a multiple of even use: below a quarter, a half, up to one and a half, three, more.
fn by_use(times: f64) -> usize {
    [0.25, 0.75, 1.5, 3.0].iter().filter(|bound| times >= **bound).count()
}

fn grid(
    title: &str,
    experts: usize,
    layers: usize,
    ink: impl Fn(usize, usize) -> Ink,
) -> Result<String, ReportError> {
    let small = !title.is_empty();
    // A cell of three pixels is the least that is seen.
    let height = 74 + (layers as u32 * if small { 16 } else { 24 }).clamp(90, 400);
    draw((if small { 380 } else { 760 }, height), |area| {
        let mut chart = axes(
            area,
            &Axes {
                x: 0.0..experts.max(1) as f64,
                y: layers.max(1) as f64..0.0,
                x_name: "expert",
                y_name: if small { "" } else { "layer" },
                rows: 0,
                title: &short(title, 34),
            },
        )?;
        for layer in 0..layers {
            let mut from = 0;
            while from < experts {
                // Neighbours of one colour are one rectangle: a page stays small at any size.
                let own = ink(layer, from);
                let to = (from..experts).find(|id| ink(layer, *id) != own).unwrap_or(experts);
                let corners = [(from as f64, layer as f64), (to as f64, layer as f64 + 1.0)];
                chart.draw_series([Rectangle::new(corners, own.rgb().filled())]).map_err(failed)?;
                from = to;
            }
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn use_has_five_levels() {
        let levels = [0.0, 0.25, 1.0, 1.5, 9.0].map(by_use);
        assert_eq!(levels, [0, 1, 2, 3, 4]);
    }
}

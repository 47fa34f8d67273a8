//! Texts that carry two labels: nothing can be learnt from them.

use std::collections::HashMap;

use super::data::Placed;
use crate::item::Item;

/// Removes what carries two labels, and says of each text where it stands.
///
/// The same text is the same words with the same options; each message names the
/// first place of every label.
pub(super) fn remove(read: Placed) -> (Vec<Item>, Vec<String>) {
    let Placed { items, places, paths } = read;
    let key =
        |item: &Item| item.whole().to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ");
    // Of each text the first place of each label, in the order of the files.
    let mut seen: HashMap<String, Vec<usize>> = HashMap::new();
    let labelled = |at: &usize| items[*at].own_label;
    for at in (0..items.len()).filter(labelled) {
        let firsts = seen.entry(key(&items[at])).or_default();
        if firsts.iter().all(|first| items[*first].domain != items[at].domain) {
            firsts.push(at);
        }
    }
    seen.retain(|_, firsts| firsts.len() > 1);
    let mut told: Vec<&Vec<usize>> = seen.values().collect();
    told.sort_unstable();
    let place = |at: &usize| {
        let (file, line) = places[*at];
        format!("{}:{line} says \"{}\"", paths[file].display(), items[*at].domain)
    };
    let message = |firsts: &&Vec<usize>| {
        let start: String = items[firsts[0]].text.chars().take(60).collect();
        let list: Vec<String> = firsts.iter().map(place).collect();
        format!("{}: {start:?}", list.join(", "))
    };
    let messages = told.iter().map(message).collect();
    let keep = |item: &Item| !item.own_label || !seen.contains_key(&key(item));
    (items.iter().filter(|item| keep(item)).cloned().collect(), messages)
}

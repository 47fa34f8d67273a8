//! The bank that tests run on: the processor's, or that of the device in COLLEGIUM_DEVICE.

use std::sync::Arc;

use engine::{Bank, Model, device};

/// The variable that names it, as `--device` does.
const DEVICE: &str = "COLLEGIUM_DEVICE";

/// # Panics
///
/// When the device is not there: a test must not pass on another one.
pub fn bank(model: &Arc<Model>) -> Arc<Bank> {
    let Ok(word) = std::env::var(DEVICE) else { return Bank::new(model.clone()) };
    let wanted = word.parse().unwrap_or_else(|error| panic!("{DEVICE} is {word:?}, not {error}"));
    let (device, missing) = device::open(wanted, model);
    assert!(
        missing.is_none(),
        "{DEVICE} is {word}: {}",
        missing.map_or(String::new(), |m| m.to_string())
    );
    Bank::on(device, model)
}

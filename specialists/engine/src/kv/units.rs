//! Memory for what sequences keep: units of a few sizes, taken and given back one by one.

use std::io;

use crate::memory::Anonymous;

/// Memory of a device, in units.  Sizes are numbered; addresses are the device's.
pub trait Units: Send {
    /// A unit of this size; what is in it is anything.  `None` if there is no memory for it.
    fn take(&mut self, size: usize) -> Option<*mut u8>;

    /// Takes back what [`Units::take`] gave.
    fn give_back(&mut self, size: usize, start: *mut u8);

    /// Fills with zero.
    ///
    /// # Safety
    ///
    /// The bytes are within a unit that nobody reads or writes meanwhile.
    unsafe fn zero(&mut self, start: *mut u8, bytes: usize);

    /// Copies one unit into another.
    ///
    /// # Safety
    ///
    /// The bytes are within two units; nobody writes the one, or reads or writes the other meanwhile.
    unsafe fn copy(&mut self, from: *const u8, to: *mut u8, bytes: usize);
}

/// Units of one size.
struct Arena {
    memory: Anonymous,
    unit_bytes: usize,
    /// Addresses that came back.
    free: Vec<*mut u8>,
    /// Units from here on were never used.
    fresh: usize,
    /// Units there are addresses for.
    most: usize,
}

/// Memory of this machine.
pub struct HostUnits(Vec<Arena>);

// SAFETY: addresses are of memory that the arena owns.
unsafe impl Send for Arena {}

impl HostUnits {
    /// Any mix of units of these sizes within `bytes`; what is not used takes no memory.
    ///
    /// # Errors
    ///
    /// When the system has no addresses for them.
    pub fn new(unit_bytes: &[usize], bytes: u64) -> io::Result<HostUnits> {
        let arena = |&unit_bytes: &usize| {
            let most = (bytes as usize).checked_div(unit_bytes).unwrap_or(0);
            let memory = Anonymous::new(most * unit_bytes)?;
            Ok(Arena { memory, unit_bytes, free: Vec::new(), fresh: 0, most })
        };
        Ok(HostUnits(unit_bytes.iter().map(arena).collect::<io::Result<_>>()?))
    }
}

impl Units for HostUnits {
    fn take(&mut self, size: usize) -> Option<*mut u8> {
        let arena = &mut self.0[size];
        arena.free.pop().or_else(|| {
            let fresh = arena.fresh;
            (fresh < arena.most).then(|| {
                arena.fresh += 1;
                arena.memory.start().wrapping_add(fresh * arena.unit_bytes)
            })
        })
    }

    fn give_back(&mut self, size: usize, start: *mut u8) {
        let arena = &mut self.0[size];
        arena.memory.give_back(start as usize - arena.memory.start() as usize, arena.unit_bytes);
        arena.free.push(start);
    }

    unsafe fn zero(&mut self, start: *mut u8, bytes: usize) {
        // SAFETY: by the caller.
        unsafe { start.write_bytes(0, bytes) };
    }

    unsafe fn copy(&mut self, from: *const u8, to: *mut u8, bytes: usize) {
        // SAFETY: by the caller.
        unsafe { from.copy_to_nonoverlapping(to, bytes) };
    }
}

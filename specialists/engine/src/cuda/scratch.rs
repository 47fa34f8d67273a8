//! Room for what a step computes, kept from step to step, so that nothing is allocated while one runs and a recorded step
//! finds everything where it was.

use std::collections::HashMap;
use std::sync::Arc;

use super::device::{CudaError, Device};
use super::memory::{Buffer, Plain, Slice};
use super::products::{Form, Input, Rounded};
use super::queue::Queue;
use crate::run::Rows;

/// All of it.
pub(super) struct Scratch {
    device: Arc<Device>,
    rooms: HashMap<&'static str, Buffer<u8>>,
    /// By form and numbers of a row; with the rows that there is room for.
    rounded: HashMap<(Form, usize), (Rounded, usize)>,
    /// What [`Rows`] stand for, each of `row` numbers for `rows` rows.
    registers: Vec<Buffer<f32>>,
    /// Those that stand for nothing.
    free: Vec<usize>,
    rows: usize,
    row: usize,
    /// What was too small, until the step that used it is over.
    outgrown: Vec<Buffer<u8>>,
    /// How often room was made: what was recorded before is of no use any more.
    pub grown: u64,
}

impl Scratch {
    pub fn new(device: &Arc<Device>) -> Scratch {
        Scratch {
            device: device.clone(),
            rooms: HashMap::new(),
            rounded: HashMap::new(),
            registers: Vec::new(),
            free: Vec::new(),
            rows: 0,
            row: 0,
            outgrown: Vec::new(),
            grown: 0,
        }
    }

    /// A step of at most so many rows of `row` numbers begins; the one before is over.
    pub fn begin(&mut self, rows: usize, row: usize) {
        self.outgrown.clear();
        if rows > self.rows || row != self.row {
            (self.rows, self.row) = (self.rows.max(rows), row);
            self.registers.clear();
            self.grown += 1;
        }
        self.free = (0..self.registers.len()).rev().collect();
    }

    /// Rows that stand for nothing yet.
    pub fn take(&mut self) -> Result<Rows, CudaError> {
        if let Some(free) = self.free.pop() {
            return Ok(Rows(free));
        }
        self.registers.push(Buffer::new(&self.device, self.rows * self.row)?);
        self.grown += 1;
        Ok(Rows(self.registers.len() - 1))
    }

    /// They are needed no more.
    pub fn give_back(&mut self, rows: Rows) {
        self.free.push(rows.0);
    }

    /// The numbers of rows.
    pub fn rows<'r>(&self, rows: &Rows) -> Slice<'r, f32> {
        let all = self.registers[rows.0].slice();
        // SAFETY: registers stay while a step runs, and are used no longer.
        unsafe { Slice::at(all.address(), all.len()) }
    }

    /// Room for `len` values under a name that nothing else in use has.
    pub fn room<'r, T: Plain>(
        &mut self,
        name: &'static str,
        len: usize,
    ) -> Result<Slice<'r, T>, CudaError> {
        let bytes = len * size_of::<T>();
        let there = self.rooms.get(name).is_some_and(|room| room.slice().len() >= bytes);
        if !there {
            let room = Buffer::new(&self.device, bytes)?;
            self.outgrown.extend(self.rooms.insert(name, room));
            self.grown += 1;
        }
        // SAFETY: it is large enough, aligned, and stays until the next step begins.
        Ok(unsafe { Slice::at(self.rooms[name].slice().address(), len) })
    }

    /// Rows of `k` numbers in the form that a matrix wants; until others take the same form.
    pub fn input<'r>(
        &mut self,
        queue: &Queue,
        form: Form,
        (x, k): (Slice<'r, f32>, usize),
        rows: super::rows::Rows<'_>,
    ) -> Result<Input<'r>, CudaError> {
        if form == Form::F32 {
            return Ok(Input::floats(x, k));
        }
        let there = self.rounded.get(&(form, k)).is_some_and(|(_, most)| *most >= rows.most);
        if !there {
            let room = Rounded::new(&self.device, form, rows.most, k)?;
            // Its memory goes back once the kernels that were asked for have passed.
            self.rounded.insert((form, k), (room, rows.most));
            self.grown += 1;
        }
        let (room, _) = &self.rounded[&(form, k)];
        room.round(queue, x, rows)?;
        // SAFETY: rooms stay until they are outgrown, when nobody reads them any more.
        Ok(unsafe { room.input().lasting() })
    }
}

//! Keys and values of all sequences, in pages out of one budget.
//!
//! A page holds [`PAGE`] tokens of one sequence, all layers.  A sequence reserves the pages it may need when it is
//! admitted, so that it never runs out halfway; they come back when its [`Pages`] are dropped, and their memory goes
//! back to the system.  Numbers are F32: keys after rotation, and values.

use std::sync::{Arc, Mutex, PoisonError};

use crate::arch::Shape;
use crate::memory;

/// Tokens in a page.
pub const PAGE: usize = 32;

/// The store of all pages.
pub struct KvStore {
    kv_dim: usize,
    layers: usize,
    page_floats: usize,
    pages: usize,
    memory: memory::Anonymous,
    free: Mutex<Vec<u32>>,
}

/// The pages of one sequence.  Dropping them gives them back.
pub struct Pages {
    store: Arc<KvStore>,
    ids: Vec<u32>,
    /// Tokens stored so far.
    len: usize,
}

/// Bytes that one token's keys and values take, all layers.
pub fn bytes_per_token(shape: &Shape) -> u64 {
    (shape.layers * 2 * shape.kv_dim() * size_of::<f32>()) as u64
}

impl KvStore {
    /// A store of as many whole pages as `bytes` hold; untouched pages take no memory.
    pub fn new(shape: &Shape, bytes: u64) -> std::io::Result<Arc<KvStore>> {
        let page_bytes = bytes_per_token(shape) * PAGE as u64;
        let pages = (bytes / page_bytes) as usize;
        Ok(Arc::new(KvStore {
            kv_dim: shape.kv_dim(),
            layers: shape.layers,
            page_floats: page_bytes as usize / size_of::<f32>(),
            pages,
            memory: memory::Anonymous::new(pages * page_bytes as usize)?,
            free: Mutex::new((0..pages as u32).rev().collect()),
        }))
    }

    /// Tokens that all pages together hold.
    pub fn capacity(&self) -> usize {
        self.pages * PAGE
    }

    /// Bytes set aside for pages.
    pub fn bytes(&self) -> u64 {
        (self.pages * self.page_floats * size_of::<f32>()) as u64
    }

    /// Bytes of pages that sequences hold now.
    pub fn bytes_in_use(&self) -> u64 {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner).len();
        ((self.pages - free) * self.page_floats * size_of::<f32>()) as u64
    }

    /// Pages for `tokens` tokens, or `None` until others are given back.
    pub fn reserve(self: &Arc<Self>, tokens: usize) -> Option<Pages> {
        let need = tokens.div_ceil(PAGE);
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if need > free.len() {
            return None;
        }
        let at = free.len() - need;
        Some(Pages { store: self.clone(), ids: free.split_off(at), len: 0 })
    }

    fn page(&self, id: u32) -> *mut f32 {
        // SAFETY: ids come from `free`, which counts the pages that were allocated.
        unsafe { self.memory.floats().add(id as usize * self.page_floats) }
    }

    /// Where a layer's keys begin in a page; values follow them.
    fn offset(&self, layer: usize) -> usize {
        debug_assert!(layer < self.layers);
        layer * 2 * PAGE * self.kv_dim
    }
}

impl Pages {
    /// Tokens stored.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Tokens there is room for.
    pub fn capacity(&self) -> usize {
        self.ids.len() * PAGE
    }

    /// Forgets all tokens; the pages stay.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Counts `tokens` more as stored, after [`Pages::put`] stored them in every layer.
    pub(crate) fn advance(&mut self, tokens: usize) {
        self.len += tokens;
        debug_assert!(self.len <= self.capacity());
    }

    /// Stores one token's key and value, each [kv_dim], at a position below the capacity.
    pub(crate) fn put(&mut self, layer: usize, position: usize, key: &[f32], value: &[f32]) {
        let dim = self.store.kv_dim;
        assert!(position < self.capacity() && key.len() == dim && value.len() == dim);
        let at = self.store.offset(layer) + position % PAGE * dim;
        let page = self.store.page(self.ids[position / PAGE]);
        // SAFETY: within the page by the assertion; this sequence alone has the page, and it is borrowed mutably.
        unsafe {
            std::slice::from_raw_parts_mut(page.add(at), dim).copy_from_slice(key);
            std::slice::from_raw_parts_mut(page.add(at + PAGE * dim), dim).copy_from_slice(value);
        }
    }

    /// Keys and values of page `index` in a layer, each [PAGE, kv_dim]; only stored positions have meaning.
    pub(crate) fn read(&self, layer: usize, index: usize) -> (&[f32], &[f32]) {
        let len = PAGE * self.store.kv_dim;
        let at = self.store.offset(layer);
        let page = self.store.page(self.ids[index]);
        // SAFETY: within the page; only this sequence writes it, and it is borrowed.
        unsafe {
            (
                std::slice::from_raw_parts(page.add(at), len),
                std::slice::from_raw_parts(page.add(at + len), len),
            )
        }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        let bytes = self.store.page_floats * size_of::<f32>();
        for &id in &self.ids {
            self.store.memory.give_back(id as usize * bytes, bytes);
        }
        self.store.free.lock().unwrap_or_else(PoisonError::into_inner).append(&mut self.ids);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::shape;

    #[test]
    fn pages_come_back() {
        let shape = shape(2, 4, 2);
        let store = KvStore::new(&shape, bytes_per_token(&shape) * 100).unwrap();
        // 100 tokens are three whole pages.
        assert_eq!(store.capacity(), 96);
        let mut a = store.reserve(33).unwrap();
        assert_eq!((a.capacity(), store.bytes_in_use()), (64, store.bytes() / 3 * 2));
        assert!(store.reserve(33).is_none());
        let b = store.reserve(1).unwrap();
        let (key, value) = (vec![1.0; shape.kv_dim()], vec![2.0; shape.kv_dim()]);
        a.put(1, 40, &key, &value);
        let (keys, values) = a.read(1, 1);
        assert_eq!(keys[8 * shape.kv_dim()..9 * shape.kv_dim()], key);
        assert_eq!(values[8 * shape.kv_dim()..9 * shape.kv_dim()], value);
        drop((a, b));
        assert_eq!(store.bytes_in_use(), 0);
        // Memory that was given back reads as zero when it is used again.
        let c = store.reserve(96).unwrap();
        assert!((0..3).all(|p| c.read(1, p).0.iter().all(|v| *v == 0.0)));
    }
}

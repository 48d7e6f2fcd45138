//! A list that grows without moving what is in it.
//!
//! A vector that grows is copied, and the allocator keeps the half that is left behind for a while: for the lists of a full
//! table that is some tens of octets for each path.

/// Elements of a chunk.
const CHUNK: usize = 4096;

/// Elements by number, from zero.
#[derive(Debug)]
pub(crate) struct Chunked<T> {
    /// All of them full, but for the last one.
    chunks: Vec<Vec<T>>,
}

impl<T> Chunked<T> {
    /// An empty list.
    pub(crate) const fn new() -> Self {
        Chunked { chunks: Vec::new() }
    }

    /// How many elements there are.
    pub(crate) fn len(&self) -> usize {
        self.chunks.last().map_or(0, |last| (self.chunks.len() - 1) * CHUNK + last.len())
    }

    /// An element.
    pub(crate) fn get(&self, at: usize) -> Option<&T> {
        self.chunks.get(at / CHUNK)?.get(at % CHUNK)
    }

    /// An element, to be changed.
    pub(crate) fn get_mut(&mut self, at: usize) -> Option<&mut T> {
        self.chunks.get_mut(at / CHUNK)?.get_mut(at % CHUNK)
    }

    /// Adds an element at the end. O(1) on average.
    pub(crate) fn push(&mut self, element: T) {
        match self.chunks.last_mut() {
            Some(last) if last.len() < CHUNK => last.push(element),
            last => {
                // Small lists, of which a node has most, take no room for large ones.
                let room = if last.is_some() { CHUNK } else { 1 };
                let mut chunk = Vec::with_capacity(room);
                chunk.push(element);
                self.chunks.push(chunk);
            }
        }
    }

    /// All elements, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.chunks.iter().flatten()
    }
}

impl<T: Default> Chunked<T> {
    /// Adds elements until there are `len`.
    pub(crate) fn grow(&mut self, len: usize) {
        for _ in self.len()..len {
            self.push(T::default());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_a_list() {
        let mut list = Chunked::new();
        for n in 0..3 * CHUNK + 1 {
            assert_eq!((list.len(), list.get(n)), (n, None));
            list.push(n);
        }
        assert!(list.iter().copied().eq(0..3 * CHUNK + 1));
        list.grow(4 * CHUNK + 7);
        list.grow(5);
        assert_eq!(list.len(), 4 * CHUNK + 7);
        for n in 0..list.len() {
            let expected = if n <= 3 * CHUNK { n } else { 0 };
            assert_eq!(list.get(n), Some(&expected));
            *list.get_mut(n).unwrap() += 1;
            assert_eq!(list.get(n), Some(&(expected + 1)));
        }
        assert_eq!(list.get_mut(4 * CHUNK + 7), None);
    }
}

//! Numbers by the keys of what they stand for. The keys are with whoever gave the numbers and are not kept here again,
//! which a map would do, with the room that a hash table leaves free.

use std::hash::{BuildHasher, Hash};

use hashbrown::{DefaultHashBuilder, HashTable};

/// See the module. A key must not change while its number is in here; `key_of` tells the key of a number that is.
#[derive(Debug)]
pub struct Numbers<N> {
    table: HashTable<N>,
    hashes: DefaultHashBuilder,
}

impl<N> Default for Numbers<N> {
    fn default() -> Self {
        Numbers { table: HashTable::new(), hashes: DefaultHashBuilder::default() }
    }
}

impl<N: Copy + Eq> Numbers<N> {
    /// The number under a key. O(1).
    pub fn find<'a, K: Hash + Eq + 'a>(&self, key: &K, key_of: impl Fn(N) -> Option<&'a K>) -> Option<N> {
        self.table.find(self.hashes.hash_one(key), |number| key_of(*number) == Some(key)).copied()
    }

    /// Puts a number under its key, beside any other there. Amortised O(1).
    pub fn insert<'a, K: Hash + 'a>(&mut self, key: &K, number: N, key_of: impl Fn(N) -> Option<&'a K>) {
        let hashes = &self.hashes;
        let hash_of = |number: &N| key_of(*number).map_or(0, |key| hashes.hash_one(key));
        self.table.insert_unique(hashes.hash_one(key), number, hash_of);
    }

    /// Takes this number, which is under no other key, from under its key, if it is there. O(1).
    pub fn remove<K: Hash>(&mut self, key: &K, number: N) {
        if let Ok(place) = self.table.find_entry(self.hashes.hash_one(key), |known| *known == number) {
            place.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_by_keys_that_are_elsewhere() {
        let keys: Vec<String> = (0..1000).map(|number| format!("key-{number}")).collect();
        let key_of = |number: usize| keys.get(number % keys.len());
        let mut numbers = Numbers::default();
        for (number, key) in keys.iter().enumerate() {
            assert_eq!(numbers.find(key, key_of), None);
            numbers.insert(key, number, key_of);
        }
        for (number, key) in keys.iter().enumerate() {
            assert_eq!(numbers.find(key, key_of), Some(number));
            let another = number + keys.len();
            numbers.insert(key, another, key_of);
            numbers.remove(key, another);
            assert_eq!(numbers.find(key, key_of), Some(number), "another number is left alone");
            numbers.remove(key, number);
            assert_eq!(numbers.find(key, key_of), None);
        }
    }
}

//! Names of services, with the type they stand for.

use std::fmt;
use std::marker::PhantomData;

/// The stable name of a service and its type: `pub const DB: Token<Database> = Token::new("adapter.db");`.
///
/// A constant of any crate can be one, and so can a port: `Token<dyn Mailer>`. Two tokens are the same when their
/// names are; a name that is used for two types is refused when the container is built.
pub struct Token<T: ?Sized> {
    key: Key,
    of: PhantomData<fn(&T)>,
}

impl<T: ?Sized> Token<T> {
    /// A token of this name. Dotted by convention: `"adapter.db"`, `"request.context"`.
    pub const fn new(name: &'static str) -> Self {
        Self { key: Key::new(name), of: PhantomData }
    }

    /// The name.
    pub const fn name(self) -> &'static str {
        self.key.name
    }

    pub(super) const fn key(self) -> Key {
        self.key
    }
}

impl<T: ?Sized> Clone for Token<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: ?Sized> Copy for Token<T> {}

impl<T: ?Sized> fmt::Debug for Token<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({})", self.key.name)
    }
}

/// A name with its hash, computed where the token is declared so that a look-up hashes nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) hash: u64,
}

impl Key {
    const fn new(name: &'static str) -> Self {
        // FNV-1a (64 bit): the one good hash that is three lines of const code.
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        let mut bytes = name.as_bytes();
        while let [byte, rest @ ..] = bytes {
            hash = (hash ^ *byte as u64).wrapping_mul(0x0100_0000_01b3);
            bytes = rest;
        }
        Self { name, hash }
    }

    /// Same name. The address settles it for almost every caller; equal names in two places are compared.
    pub(super) fn is(self, other: Self) -> bool {
        self.hash == other.hash && (std::ptr::eq(self.name, other.name) || self.name == other.name)
    }
}

//! Sessions over real TCP: two of our speakers, or one and a socket that misbehaves, in a network namespace of their own.
//! `ss` says what connections there are.

mod hostile;
mod live;
mod setup;
mod tcp;

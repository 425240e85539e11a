//! What is done of each specification, section by section, with the tests that show it. Documentation alone.
#![doc = include_str!("../docs/conformance.md")]

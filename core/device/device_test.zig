//! A device in a network namespace of its own: open, configure, link up and down, close.
const std = @import("std");

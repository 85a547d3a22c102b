//! Root of the room `config`: a file of wg or wg-quick, as text, to what is asked of a device. Pure: imports wire, and
//! of protocol the spelling of keys. Allocates nothing: buffers are the caller's. In reading order:
pub const text = @import("text.zig");
pub const notes = @import("notes.zig");
pub const base64 = @import("base64.zig");
pub const values = @import("values.zig");
pub const close_words = @import("close_words.zig");
pub const grammar = @import("grammar.zig");
pub const change_text = @import("change_text.zig");
pub const parser = @import("parser.zig");

pub const Notes = notes.Notes;
pub const Settings = parser.Settings;
pub const parse = parser.parse;

test {
    _ = text;
    _ = notes;
    _ = base64;
    _ = values;
    _ = close_words;
    _ = grammar;
    _ = change_text;
    _ = parser;
}

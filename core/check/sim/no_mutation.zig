//! Stands where scripts/sim --mutations has its list of deliberate bugs: there are none in what is simulated otherwise.

pub fn select(name: []const u8) bool {
    _ = name;
    return false;
}

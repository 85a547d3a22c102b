//! zig build [-Doptimize=safe] [-Dstrip=true] [-Dtarget=...] [--prefix DIRECTORY]
//!     libraries, daemon, header, pkg-config file in zig-out/, or in DIRECTORY
//! zig build test | test-programs | bench | fmt
//! Each room of core/ is a module, so an import against the arrow does not compile: docs/ARCHITECTURE.md.
//! scripts/build_core builds the same without `zig build`, whose own start-up takes minutes when cold.
const std = @import("std");
const zon = @import("build.zig.zon");

/// One compilation of the cipher kernels; the CPU is asked at run time which one to take.
const Flavour = struct { name: []const u8, cpu: ?[]const u8, feature: ?std.Target.x86.Feature = null };

const x86_64_flavours = [_]Flavour{
    .{ .name = "baseline", .cpu = "x86_64" },
    .{ .name = "v3", .cpu = "x86_64_v3" },
    .{ .name = "v4", .cpu = "x86_64_v4" },
    .{ .name = "v4ifma", .cpu = "x86_64_v4", .feature = .avx512ifma },
};
const other_flavours = [_]Flavour{.{ .name = "baseline", .cpu = null }};

/// PYWG_ABI_VERSION: part of the name of the shared library, so that a later one can lie beside it.
const abi_version = 1;

/// As in tools/build/core.py, which a test compares.
const pkg_config =
    \\prefix=${{pcfiledir}}/../..
    \\includedir=${{prefix}}/include
    \\libdir=${{prefix}}/lib
    \\
    \\Name: pywg
    \\Description: Userspace WireGuard: a whole device, or the protocol alone
    \\Version: {s}
    \\Cflags: -I${{includedir}}
    \\Libs: -L${{libdir}} -lpywg
    \\
;

/// A module: what it may import stands above it, or is an option.
const Room = struct { name: []const u8, root: []const u8, imports: []const []const u8 = &.{} };

/// The same graph as that of scripts/build_core.py, which a test compares.
const graph = [_]Room{
    .{ .name = "wire", .root = "core/wire/wire.zig" },
    .{ .name = "protocol", .root = "core/protocol/protocol.zig", .imports = &.{"wire"} },
    .{ .name = "config", .root = "core/config/config.zig", .imports = &.{ "wire", "protocol" } },
    .{ .name = "cipher", .root = "core/cipher/cipher.zig", .imports = &.{"cipher_options"} },
    .{ .name = "io", .root = "core/io/io.zig", .imports = &.{"wire"} },
    .{ .name = "device", .root = "core/device/device.zig", .imports = &.{ "wire", "protocol", "cipher", "io" } },
    .{ .name = "runtime", .root = "core/runtime.zig" },
    .{
        .name = "abi",
        .root = "core/abi/abi.zig",
        .imports = &.{ "wire", "protocol", "cipher", "io", "device", "runtime", "build_options" },
    },
    .{
        .name = "daemon",
        .root = "core/daemon/daemon.zig",
        .imports = &.{ "wire", "protocol", "config", "cipher", "io", "device", "runtime", "build_options" },
    },
    // In no install:
    .{ .name = "bench", .root = "core/check/bench.zig", .imports = &.{ "wire", "protocol", "cipher", "runtime" } },
};

/// One module for each row of the graph, compiled one way.
const Rooms = struct {
    modules: [graph.len]?*std.Build.Module = @splat(null),

    fn get(rooms: *const Rooms, name: []const u8) *std.Build.Module {
        for (graph, rooms.modules) |room, module| {
            if (std.mem.eql(u8, room.name, name)) return module orelse break;
        }
        std.debug.panic("{s} is not above the module that imports it", .{name});
    }
};

const Build = struct {
    b: *std.Build,
    target: std.Build.ResolvedTarget,
    optimize: std.lang.OptimizeMode,
    strip: bool,
    kernels: []const *std.Build.Step.Compile,
    cipher_options: *std.Build.Step.Options,
    build_options: *std.Build.Step.Options,

    fn rooms(self: *const Build, optimize: std.lang.OptimizeMode) Rooms {
        var all: Rooms = .{};
        for (graph, &all.modules) |room, *slot| {
            const module = self.b.createModule(.{
                .root_source_file = self.b.path(room.root),
                .target = self.target,
                .optimize = optimize,
                .strip = self.strip,
                .pic = true,
            });
            for (room.imports) |name| {
                if (self.options(name)) |generated| {
                    module.addOptions(name, generated);
                } else module.addImport(name, all.get(name));
            }
            slot.* = module;
        }
        for (self.kernels) |object| all.get("cipher").addObject(object);
        return all;
    }

    fn options(self: *const Build, name: []const u8) ?*std.Build.Step.Options {
        if (std.mem.eql(u8, name, "cipher_options")) return self.cipher_options;
        if (std.mem.eql(u8, name, "build_options")) return self.build_options;
        return null;
    }
};

pub fn build(b: *std.Build) void {
    const target = b.standardTargetOptions(.{
        .default_target = .{ .cpu_model = .baseline, .os_tag = .linux, .abi = .none },
    });
    const optimize = b.option(std.lang.OptimizeMode, "optimize", "safe (default), debug, fast, small") orelse .safe;
    var self: Build = .{
        .b = b,
        .target = target,
        .optimize = optimize,
        .strip = b.option(bool, "strip", "Leave out debug information") orelse (optimize != .debug),
        .kernels = &.{},
        .cipher_options = b.addOptions(),
        .build_options = b.addOptions(),
    };
    self.kernels = addKernels(&self);
    self.build_options.addOption([]const u8, "version", zon.version);
    install(&self);
    addTests(&self);
    addBench(&self);
    const check = b.addFmt(.{ .paths = &.{ b.path("build.zig"), b.path("core") }, .check = true });
    b.step("fmt", "Check the formatting").dependOn(&check.step);
}

fn addKernels(self: *const Build) []const *std.Build.Step.Compile {
    const b = self.b;
    const is_x86_64 = self.target.result.cpu.arch == .x86_64;
    const flavours: []const Flavour = if (is_x86_64) &x86_64_flavours else &other_flavours;
    const objects = b.allocator.alloc(*std.Build.Step.Compile, flavours.len) catch @panic("OOM");
    const names = b.allocator.alloc([]const u8, flavours.len) catch @panic("OOM");
    for (flavours, objects, names) |flavour, *object, *name| {
        var query = self.target.query;
        if (flavour.cpu) |cpu| {
            query.cpu_model = .{ .explicit = self.target.result.cpu.arch.parseCpuModel(cpu).? };
            query.cpu_features_add = if (flavour.feature) |feature| std.Target.x86.featureSet(&.{feature}) else .empty;
            query.cpu_features_sub = .empty;
        }
        const kernel_options = b.addOptions();
        kernel_options.addOption([]const u8, "suffix", flavour.name);
        kernel_options.addOption([]const u8, "model", "");
        const kernel = b.createModule(.{
            .root_source_file = b.path("core/cipher/kernels.zig"),
            .target = b.resolveTargetQuery(query),
            .optimize = .fast, // the one hot room: no safety checks
            .strip = true,
            .pic = true,
            .omit_frame_pointer = true,
        });
        kernel.addOptions("kernel_options", kernel_options);
        kernel.addImport("wire", b.createModule(.{ .root_source_file = b.path("core/wire/wire.zig") }));
        object.* = b.addObject(.{
            .name = b.fmt("cipher_{s}", .{flavour.name}),
            .root_module = kernel,
            .use_llvm = true,
        });
        name.* = flavour.name;
    }
    self.cipher_options.addOption([]const []const u8, "flavours", names);
    return objects;
}

fn install(self: *const Build) void {
    const b = self.b;
    const all = self.rooms(self.optimize);
    const abi = all.get("abi");
    const shared = b.addLibrary(.{
        .name = "pywg",
        .linkage = .dynamic,
        .root_module = abi,
        .use_llvm = true,
        .version = .{ .major = abi_version, .minor = 0, .patch = 0 },
    });
    shared.installHeader(b.path("core/include/pywg.h"), "pywg.h");
    b.installArtifact(shared);
    const static = b.addLibrary(.{ .name = "pywg", .linkage = .static, .root_module = abi, .use_llvm = true });
    static.bundle_compiler_rt = true; // so that a C linker needs nothing else
    b.installArtifact(static);
    const daemon = b.addExecutable(.{ .name = "pywgd", .root_module = all.get("daemon"), .use_llvm = true });
    b.installArtifact(daemon);
    const description = b.addWriteFiles().add("pywg.pc", b.fmt(pkg_config, .{zon.version}));
    b.getInstallStep().dependOn(&b.addInstallFile(description, "lib/pkgconfig/pywg.pc").step);
}

/// Every room has tests of its own, with all checks on. What passed once is not run again until something changes;
/// scripts/green takes the programs to run them many times.
fn addTests(self: *const Build) void {
    const b = self.b;
    const step = b.step("test", "Run the Zig tests");
    const programs = b.step("test-programs", "Compile the Zig tests into zig-out/test/");
    const all = self.rooms(.safe);
    for ([_][]const u8{ "wire", "protocol", "config", "cipher", "io", "device", "abi", "daemon" }) |name| {
        const tests = b.addTest(.{ .name = name, .root_module = all.get(name), .use_llvm = true });
        step.dependOn(&b.addRunArtifact(tests).step);
        programs.dependOn(&b.addInstallArtifact(tests, .{ .dest_dir = .{ .override = .{ .custom = "test" } } }).step);
    }
}

/// Ours as an install is compiled, and ReleaseFast for comparison; the script runs them and all others in turns.
fn addBench(self: *const Build) void {
    const b = self.b;
    const run = b.addSystemCommand(&.{"sh"});
    run.addFileArg(b.path("scripts/bench_crypto"));
    run.addArg("--programs");
    for ([_]std.lang.OptimizeMode{ .safe, .fast }) |optimize| {
        const bench = self.rooms(optimize).get("bench");
        run.addArtifactArg(b.addExecutable(.{ .name = "bench", .root_module = bench, .use_llvm = true }));
    }
    run.addArg("--zig"); // for the program in C
    run.addFileArg(.zig_exe);
    run.stdio = .inherit;
    run.addPassthruArgs();
    b.step("bench", "Measure the cryptography beside OpenSSL and Go").dependOn(&run.step);
}

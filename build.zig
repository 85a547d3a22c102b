//! zig build [-Doptimize=safe] [-Dstrip=true] [-Dtarget=...]   library, static library, daemon, header in zig-out/
//! zig build test | test-programs | bench | fmt
//! Each room of core/ is a module, so an import against the arrow does not compile: docs/ARCHITECTURE.md.
//! scripts/build_core builds the same without `zig build`, whose own start-up takes minutes when cold.
const std = @import("std");
const zon = @import("build.zig.zon");

/// One compilation of the cipher kernels; the CPU is asked at run time which one to take.
const Flavour = struct { name: []const u8, cpu: ?[]const u8 };

const x86_64_flavours = [_]Flavour{
    .{ .name = "baseline", .cpu = "x86_64" },
    .{ .name = "v3", .cpu = "x86_64_v3" },
    .{ .name = "v4", .cpu = "x86_64_v4" },
};
const other_flavours = [_]Flavour{.{ .name = "baseline", .cpu = null }};

const Rooms = struct {
    wire: *std.Build.Module,
    protocol: *std.Build.Module,
    cipher: *std.Build.Module,
    io: *std.Build.Module,
    device: *std.Build.Module,
    abi: *std.Build.Module,
    daemon: *std.Build.Module,
};

const Build = struct {
    b: *std.Build,
    target: std.Build.ResolvedTarget,
    optimize: std.lang.OptimizeMode,
    strip: bool,
    kernels: []const *std.Build.Step.Compile,
    cipher_options: *std.Build.Step.Options,
    build_options: *std.Build.Step.Options,

    /// The graph of rooms, with the tops that may import all of them.
    fn rooms(self: *const Build, optimize: std.lang.OptimizeMode) Rooms {
        const all: Rooms = .{
            .wire = self.room("core/wire/wire.zig", optimize),
            .protocol = self.room("core/protocol/protocol.zig", optimize),
            .cipher = self.cipherRoom("core/cipher/cipher.zig", optimize),
            .io = self.room("core/io/io.zig", optimize),
            .device = self.room("core/device/device.zig", optimize),
            .abi = self.room("core/abi/abi.zig", optimize),
            .daemon = self.room("core/daemon.zig", optimize),
        };
        all.protocol.addImport("wire", all.wire);
        all.io.addImport("wire", all.wire);
        for ([_]*std.Build.Module{ all.device, all.abi, all.daemon }) |upper| {
            upper.addImport("wire", all.wire);
            upper.addImport("protocol", all.protocol);
            upper.addImport("cipher", all.cipher);
            upper.addImport("io", all.io);
        }
        for ([_]*std.Build.Module{ all.abi, all.daemon }) |top| {
            top.addImport("device", all.device);
            top.addOptions("build_options", self.build_options);
        }
        return all;
    }

    fn cipherRoom(self: *const Build, root: []const u8, optimize: std.lang.OptimizeMode) *std.Build.Module {
        const cipher = self.room(root, optimize);
        cipher.addOptions("cipher_options", self.cipher_options);
        for (self.kernels) |object| cipher.addObject(object);
        return cipher;
    }

    fn room(self: *const Build, path: []const u8, optimize: std.lang.OptimizeMode) *std.Build.Module {
        return self.b.createModule(.{
            .root_source_file = self.b.path(path),
            .target = self.target,
            .optimize = optimize,
            .strip = self.strip,
            .pic = true,
        });
    }
};

pub fn build(b: *std.Build) void {
    const target = b.standardTargetOptions(.{ .default_target = .{ .cpu_model = .baseline, .os_tag = .linux, .abi = .none } });
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
            query.cpu_features_add = .empty;
            query.cpu_features_sub = .empty;
        }
        const kernel_options = b.addOptions();
        kernel_options.addOption([]const u8, "suffix", flavour.name);
        const kernel = b.createModule(.{
            .root_source_file = b.path("core/cipher/kernels.zig"),
            .target = b.resolveTargetQuery(query),
            .optimize = .fast, // the one hot room: no safety checks
            .strip = true,
            .pic = true,
            .omit_frame_pointer = true,
        });
        kernel.addOptions("kernel_options", kernel_options);
        object.* = b.addObject(.{ .name = b.fmt("cipher_{s}", .{flavour.name}), .root_module = kernel, .use_llvm = true });
        name.* = flavour.name;
    }
    self.cipher_options.addOption([]const []const u8, "flavours", names);
    return objects;
}

fn install(self: *const Build) void {
    const b = self.b;
    const all = self.rooms(self.optimize);
    const shared = b.addLibrary(.{ .name = "pywg", .linkage = .dynamic, .root_module = all.abi, .use_llvm = true });
    shared.installHeader(b.path("core/include/pywg.h"), "pywg.h");
    b.installArtifact(shared);
    const static = b.addLibrary(.{ .name = "pywg", .linkage = .static, .root_module = all.abi, .use_llvm = true });
    static.bundle_compiler_rt = true; // so that a C linker needs nothing else
    b.installArtifact(static);
    const daemon = b.addExecutable(.{ .name = "pywgd", .root_module = all.daemon, .use_llvm = true });
    b.installArtifact(daemon);
}

/// Every room has tests of its own, with all checks on. What passed once is not run again until something changes;
/// scripts/green takes the programs to run them many times.
fn addTests(self: *const Build) void {
    const b = self.b;
    const step = b.step("test", "Run the Zig tests");
    const programs = b.step("test-programs", "Compile the Zig tests into zig-out/test/");
    const all = self.rooms(.safe);
    inline for (.{ "wire", "protocol", "cipher", "io", "device" }) |room_name| {
        const tests = b.addTest(.{ .name = room_name, .root_module = @field(all, room_name), .use_llvm = true });
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
        const all = self.rooms(optimize);
        const bench = self.room("core/bench.zig", optimize);
        bench.addImport("wire", all.wire);
        bench.addImport("protocol", all.protocol);
        bench.addImport("cipher", all.cipher);
        run.addArtifactArg(b.addExecutable(.{ .name = "bench", .root_module = bench, .use_llvm = true }));
    }
    run.addArg("--zig"); // for the program in C
    run.addFileArg(.zig_exe);
    run.stdio = .inherit;
    run.addPassthruArgs();
    b.step("bench", "Measure the cryptography beside OpenSSL and Go").dependOn(&run.step);
}

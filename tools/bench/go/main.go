// What scripts/bench_crypto measures of Go: golang.org/x/crypto, crypto/ecdh and the handshake of wireguard-go.
//
//	bench_go MILLISECONDS CASE [BYTES]
//
// The cases and the lines that come out are those of core/check/bench.zig. All of it runs in one goroutine and on one
// processor; the time is that of the whole process, so what the garbage collector costs is in it.
package main

import (
	"crypto/ecdh"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/crypto/blake2s"
	"golang.org/x/crypto/chacha20poly1305"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn/bindtest"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun/tuntest"
)

const (
	poolBytes  = 128 << 10
	batch      = 44
	headerSize = 16
	tagSize    = 16
)

func main() {
	runtime.GOMAXPROCS(1)
	milliseconds, kind, size := arguments()
	budget := time.Duration(milliseconds) * time.Millisecond
	switch kind {
	case "aead":
		aead(budget, size)
	case "x25519":
		x25519(budget)
	case "blake2s":
		blake2(budget, size)
	case "handshake":
		handshakes(budget)
	default:
		fail("no such case")
	}
}

func arguments() (int, string, int) {
	if len(os.Args) < 3 {
		fail("bench_go MILLISECONDS CASE [BYTES]")
	}
	milliseconds, err := strconv.Atoi(os.Args[1])
	check(err)
	size := 0
	if len(os.Args) > 3 {
		size, err = strconv.Atoi(os.Args[3])
		check(err)
	}
	return milliseconds, os.Args[2], size
}

func report(name, operation string, size int, value float64) {
	fmt.Printf("%s\t%s\t%d\t1\t%g\n", name, operation, size, value)
}

func fail(reason string) {
	fmt.Fprintln(os.Stderr, reason)
	os.Exit(2)
}

func check(err error) {
	if err != nil {
		fail(err.Error())
	}
}

func expect(what bool, reason string) {
	if !what {
		fail(reason)
	}
}

func cpuTime() time.Duration {
	var spent unix.Timespec
	check(unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &spent))
	return time.Duration(spent.Nano())
}

// repeat runs work until the budget is spent, after an eighth of it to warm up, and answers runs per second.
func repeat(budget time.Duration, runs int, work func()) float64 {
	for end := cpuTime() + budget/8; cpuTime() < end; {
		work()
	}
	start, count := cpuTime(), 0
	for {
		for range runs {
			work()
		}
		count += runs
		if spent := cpuTime() - start; spent >= budget {
			return float64(count) / spent.Seconds()
		}
	}
}

// aead works in place, as wireguard-go does, through messages that lie one behind the other as in a train.
func aead(budget time.Duration, size int) {
	stride := headerSize + size + tagSize
	count := poolBytes / (batch * stride) * batch
	pool := make([]byte, count*stride)
	key := make([]byte, chacha20poly1305.KeySize)
	cipher, err := chacha20poly1305.New(key)
	check(err)
	var nonce [chacha20poly1305.NonceSize]byte
	var sealing, opening time.Duration
	var counter, passes uint64
	for warm := false; sealing+opening < 2*budget; {
		start := cpuTime()
		for i := range count {
			binary.LittleEndian.PutUint64(nonce[4:], counter+uint64(i))
			body := pool[i*stride+headerSize:]
			cipher.Seal(body[:0], nonce[:], body[:size], nil)
		}
		middle := cpuTime()
		for i := range count {
			binary.LittleEndian.PutUint64(nonce[4:], counter+uint64(i))
			body := pool[i*stride+headerSize:]
			if _, err := cipher.Open(body[:0], nonce[:], body[:size+tagSize], nil); err != nil {
				fail("a message did not open")
			}
		}
		end := cpuTime()
		counter += uint64(count)
		passes++
		sealing += middle - start
		opening += end - middle
		if !warm && sealing+opening >= budget/4 {
			warm, sealing, opening, passes = true, 0, 0, 0
		}
	}
	bytes := float64(passes) * float64(count*size)
	report("Go x/crypto", "seal", size, bytes/float64(sealing.Nanoseconds()))
	report("Go x/crypto", "open", size, bytes/float64(opening.Nanoseconds()))
}

func x25519(budget time.Duration) {
	private, err := ecdh.X25519().GenerateKey(rand.Reader)
	check(err)
	other, err := ecdh.X25519().GenerateKey(rand.Reader)
	check(err)
	public := other.PublicKey()
	rate := repeat(budget, 16, func() {
		_, err := private.ECDH(public)
		check(err)
	})
	report("Go crypto/ecdh, x/crypto", "x25519", 0, rate)
}

func blake2(budget time.Duration, size int) {
	input := make([]byte, size)
	rate := repeat(budget, 256, func() { input[0] = blake2s.Sum256(input)[0] })
	report("Go crypto/ecdh, x/crypto", "blake2s", size, rate*float64(size)/1e6)
}

// ---- handshakes ----------------------------------------------------------------------------------------------------

// wireguard-go reads the clock itself and answers one peer every 20 ms at most; with this many responders a round
// takes longer than that on any CPU we know of, or else it sleeps a little.
const (
	responders = 64
	pause      = 25 * time.Millisecond
)

type end struct {
	device  *device.Device
	public  device.NoisePublicKey
	checker device.CookieChecker
}

// link is one responder, and each side's view of the other.
type link struct {
	responder   *end
	atInitiator *device.Peer
	atResponder *device.Peer
	toResponder device.CookieGenerator
	toInitiator device.CookieGenerator
}

func handshakes(budget time.Duration) {
	initiator := newEnd()
	links := make([]*link, responders)
	for i := range links {
		links[i] = newLink(initiator)
	}
	var spent time.Duration
	done := 0
	for round := 0; spent < budget; round++ {
		begun := time.Now()
		start := cpuTime()
		for _, link := range links {
			link.shake(initiator)
		}
		if round > 0 { // the first warms up
			spent += cpuTime() - start
			done += len(links)
		}
		time.Sleep(pause - time.Since(begun))
	}
	report("wireguard-go", "handshake", 0, float64(done)/spent.Seconds())
}

func newEnd() *end {
	private, err := ecdh.X25519().GenerateKey(rand.Reader)
	check(err)
	made := &end{
		device: device.NewDevice(
			tuntest.NewChannelTUN().TUN(), bindtest.NewChannelBinds()[0], device.NewLogger(device.LogLevelSilent, ""),
		),
		public: device.NoisePublicKey(private.PublicKey().Bytes()),
	}
	check(made.device.SetPrivateKey(device.NoisePrivateKey(private.Bytes())))
	check(made.device.Up())
	made.checker.Init(made.public)
	return made
}

func (e *end) newPeer(public device.NoisePublicKey) *device.Peer {
	peer, err := e.device.NewPeer(public)
	check(err)
	peer.Start() // else its initiations are refused
	return peer
}

func newLink(initiator *end) *link {
	made := &link{responder: newEnd()}
	made.atInitiator = initiator.newPeer(made.responder.public)
	made.atResponder = made.responder.newPeer(initiator.public)
	made.toResponder.Init(made.responder.public)
	made.toInitiator.Init(initiator.public)
	return made
}

// shake does what SendHandshakeInitiation, RoutineHandshake and SendHandshakeResponse do, without queues, timers
// and sockets.
func (link *link) shake(initiator *end) {
	initiation, err := initiator.device.CreateMessageInitiation(link.atInitiator)
	check(err)
	packet := make([]byte, device.MessageInitiationSize)
	_, err = binary.Encode(packet, binary.LittleEndian, initiation)
	check(err)
	link.toResponder.AddMacs(packet)

	expect(link.responder.checker.CheckMAC1(packet), "MAC1 of an initiation")
	var arrived device.MessageInitiation
	_, err = binary.Decode(packet, binary.LittleEndian, &arrived)
	check(err)
	expect(link.responder.device.ConsumeMessageInitiation(&arrived) == link.atResponder, "an initiation was refused")
	response, err := link.responder.device.CreateMessageResponse(link.atResponder)
	check(err)
	packet = make([]byte, device.MessageResponseSize)
	_, err = binary.Encode(packet, binary.LittleEndian, response)
	check(err)
	link.toInitiator.AddMacs(packet)
	check(link.atResponder.BeginSymmetricSession())

	expect(initiator.checker.CheckMAC1(packet), "MAC1 of a response")
	var answer device.MessageResponse
	_, err = binary.Decode(packet, binary.LittleEndian, &answer)
	check(err)
	expect(initiator.device.ConsumeMessageResponse(&answer) == link.atInitiator, "a response was refused")
	check(link.atInitiator.BeginSymmetricSession())
}

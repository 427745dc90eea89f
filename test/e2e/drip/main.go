// A file system whose log comes as slowly as a hostile guest likes: drip DIRECTORY mounts it there, by FUSE.
//
// It has two files: result.json, served at once, and guest.log, of one gigabyte, of which each read is answered with at
// most 32 KiB after twenty seconds.
package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"syscall"
	"time"
)

// Opcodes, as in linux/fuse.h.
const (
	lookup     = 1
	forget     = 2
	getattr    = 3
	open       = 14
	read       = 15
	release    = 18
	flush      = 25
	initialize = 26
	opendir    = 27
	readdir    = 28
	releasedir = 29
	manyForget = 42
)

const (
	root      = 1
	resultID  = 2
	logID     = 3
	logBytes  = 1 << 30
	most      = 32 << 10
	pause     = 20 * time.Second
	directIO  = 1
	headerIn  = 40
	noEntry   = -int32(syscall.ENOENT)
	noSystem  = -int32(syscall.ENOSYS)
	resultSay = `{"schema_version":1,"status":"failed","exit_code":8}`
)

var order = binary.LittleEndian

func main() {
	device, err := syscall.Open("/dev/fuse", syscall.O_RDWR, 0)
	check("open /dev/fuse", err)
	options := fmt.Sprintf("fd=%d,rootmode=40755,user_id=0,group_id=0,allow_other", device)
	check("mount", syscall.Mount("drip", os.Args[1], "fuse", syscall.MS_NOSUID|syscall.MS_NODEV, options))
	fmt.Println("mounted")
	buffer := make([]byte, 1<<20)
	for {
		n, err := syscall.Read(device, buffer)
		if err == syscall.EINTR || err == syscall.ENOENT {
			continue
		}
		check("read", err)
		go answer(device, append([]byte(nil), buffer[:n]...))
	}
}

func check(what string, err error) {
	if err != nil {
		fmt.Println(what, err)
		os.Exit(1)
	}
}

func answer(device int, request []byte) {
	opcode, node := order.Uint32(request[4:]), order.Uint64(request[16:])
	body := request[headerIn:]
	switch opcode {
	case forget, manyForget:
		return
	case initialize:
		reply(device, request, 0, initialized())
	case lookup:
		name := string(body[:len(body)-1])
		switch name {
		case "result.json":
			reply(device, request, 0, entry(resultID))
		case "guest.log":
			reply(device, request, 0, entry(logID))
		default:
			reply(device, request, noEntry, nil)
		}
	case getattr:
		reply(device, request, 0, append(make([]byte, 16), attributes(node)...))
	case open, opendir:
		opened := make([]byte, 16)
		if opcode == open {
			order.PutUint32(opened[8:], directIO)
		}
		reply(device, request, 0, opened)
	case readdir, release, releasedir, flush:
		reply(device, request, 0, nil)
	case read:
		reply(device, request, 0, content(node, order.Uint64(body[8:]), order.Uint32(body[16:])))
	default:
		reply(device, request, noSystem, nil)
	}
}

func content(node, offset uint64, size uint32) []byte {
	if node == resultID {
		if offset >= uint64(len(resultSay)) {
			return nil
		}
		return []byte(resultSay)[offset:]
	}
	time.Sleep(pause)
	if offset >= logBytes {
		return nil
	}
	return make([]byte, min(uint64(size), most, logBytes-offset))
}

func reply(device int, request []byte, code int32, body []byte) {
	out := make([]byte, 16, 16+len(body))
	order.PutUint32(out, uint32(16+len(body)))
	order.PutUint32(out[4:], uint32(code))
	copy(out[8:], request[8:16])
	syscall.Write(device, append(out, body...))
}

func initialized() []byte {
	out := make([]byte, 64)
	order.PutUint32(out, 7)
	order.PutUint32(out[4:], 31)
	order.PutUint32(out[8:], 128<<10)
	order.PutUint16(out[16:], 64)
	order.PutUint16(out[18:], 48)
	order.PutUint32(out[20:], 128<<10)
	order.PutUint32(out[24:], 1)
	return out
}

func entry(node uint64) []byte {
	out := make([]byte, 40)
	order.PutUint64(out, node)
	return append(out, attributes(node)...)
}

func attributes(node uint64) []byte {
	out := make([]byte, 88)
	mode, size := uint32(syscall.S_IFREG|0o644), uint64(len(resultSay))
	if node == root {
		mode, size = syscall.S_IFDIR|0o755, 0
	}
	if node == logID {
		size = logBytes
	}
	order.PutUint64(out, node)
	order.PutUint64(out[8:], size)
	order.PutUint32(out[60:], mode)
	order.PutUint32(out[64:], 1)
	order.PutUint32(out[80:], 4096)
	return out
}

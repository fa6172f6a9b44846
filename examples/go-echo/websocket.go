package main

// WebSocket (RFC 6455), server side, by hand: handshake, frames, fragmentation, ping, close.

import (
	"bufio"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

const (
	maxMessage   = 64 * 1024        // longest message, over all its fragments
	writeTimeout = 10 * time.Second // a client that takes nothing for this long is gone
	closeTimeout = 2 * time.Second  // for the other half of the closing handshake

	opContinue = 0x0
	opText     = 0x1
	opBinary   = 0x2
	opClose    = 0x8
	opPing     = 0x9
	opPong     = 0xA
)

// closeError is an end with a code to tell the other side.
type closeError struct {
	code   uint16
	reason string
}

func (e closeError) Error() string { return fmt.Sprintf("%d %s", e.code, e.reason) }

var errGone = errors.New("the connection is gone")

// socket is one upgraded connection. One goroutine reads; any may write.
type socket struct {
	conn   net.Conn
	reader *bufio.Reader
	mu     sync.Mutex // guards writes and closed
	closed bool
}

func listHas(header http.Header, name, wanted string) bool {
	for _, value := range header.Values(name) {
		for _, part := range strings.Split(value, ",") {
			if strings.EqualFold(strings.TrimSpace(part), wanted) {
				return true
			}
		}
	}
	return false
}

// upgrade answers the handshake and takes the connection over, or answers an HTTP error.
func upgrade(w http.ResponseWriter, r *http.Request) (*socket, error) {
	key := r.Header.Get("Sec-WebSocket-Key")
	nonce, err := base64.StdEncoding.DecodeString(key)
	if r.Method != http.MethodGet || !listHas(r.Header, "Connection", "upgrade") || err != nil || len(nonce) != 16 {
		http.Error(w, "not a WebSocket handshake", http.StatusBadRequest)
		return nil, errGone
	}
	if r.Header.Get("Sec-WebSocket-Version") != "13" {
		w.Header().Set("Sec-WebSocket-Version", "13")
		http.Error(w, "WebSocket version 13 only", http.StatusUpgradeRequired)
		return nil, errGone
	}
	hijacker, ok := w.(http.Hijacker)
	if !ok {
		http.Error(w, "cannot upgrade", http.StatusInternalServerError)
		return nil, errGone
	}
	conn, buffered, err := hijacker.Hijack()
	if err != nil {
		return nil, err
	}
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	response := "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Accept: " + base64.StdEncoding.EncodeToString(sum[:]) + "\r\n\r\n"
	conn.SetDeadline(time.Time{})
	conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	if _, err := conn.Write([]byte(response)); err != nil {
		conn.Close()
		return nil, err
	}
	// The buffered reader may hold the client's first frames already.
	return &socket{conn: conn, reader: buffered.Reader}, nil
}

type frame struct {
	final   bool
	opcode  byte
	payload []byte
}

func (s *socket) readFrame(room int) (frame, error) {
	var head [2]byte
	if _, err := io.ReadFull(s.reader, head[:]); err != nil {
		return frame{}, errGone
	}
	f := frame{final: head[0]&0x80 != 0, opcode: head[0] & 0x0F}
	if head[0]&0x70 != 0 {
		return f, closeError{1002, "reserved bits"}
	}
	if head[1]&0x80 == 0 {
		return f, closeError{1002, "client frames must be masked"}
	}
	length := uint64(head[1] & 0x7F)
	control := f.opcode >= 0x8
	if control && (length > 125 || !f.final) {
		return f, closeError{1002, "bad control frame"}
	}
	if extra := map[uint64]int{126: 2, 127: 8}[length]; extra > 0 {
		var wide [8]byte
		if _, err := io.ReadFull(s.reader, wide[8-extra:]); err != nil {
			return f, errGone
		}
		length = binary.BigEndian.Uint64(wide[:])
	}
	// Checked before a single byte is allocated: the length is the client's claim.
	if !control && length > uint64(room) {
		return f, closeError{1009, "message too long"}
	}
	var mask [4]byte
	if _, err := io.ReadFull(s.reader, mask[:]); err != nil {
		return f, errGone
	}
	f.payload = make([]byte, length)
	if _, err := io.ReadFull(s.reader, f.payload); err != nil {
		return f, errGone
	}
	for i := range f.payload {
		f.payload[i] ^= mask[i%4]
	}
	return f, nil
}

// read returns the next whole message; pings and closes are answered on the way.
func (s *socket) read() (opcode byte, message []byte, err error) {
	for {
		f, err := s.readFrame(maxMessage - len(message))
		if err != nil {
			return 0, nil, err
		}
		switch f.opcode {
		case opPing:
			if err := s.write(opPong, f.payload); err != nil {
				return 0, nil, err
			}
			continue
		case opPong:
			continue
		case opClose:
			return 0, nil, answerClose(f.payload)
		case opContinue:
			if opcode == 0 {
				return 0, nil, closeError{1002, "nothing to continue"}
			}
		case opText, opBinary:
			if opcode != 0 {
				return 0, nil, closeError{1002, "message within a message"}
			}
			opcode = f.opcode
		default:
			return 0, nil, closeError{1002, "unknown opcode"}
		}
		message = append(message, f.payload...)
		if f.final {
			if opcode == opText && !utf8.Valid(message) {
				return 0, nil, closeError{1007, "not UTF-8"}
			}
			return opcode, message, nil
		}
	}
}

// answerClose is the close to send back: the same code, if it is one that may be sent.
func answerClose(payload []byte) error {
	if len(payload) == 0 {
		return closeError{1000, ""}
	}
	if len(payload) == 1 || !utf8.Valid(payload[2:]) {
		return closeError{1002, "bad close frame"}
	}
	code := binary.BigEndian.Uint16(payload)
	known := (code >= 1000 && code <= 1014 && code != 1004 && code != 1005 && code != 1006) || (code >= 3000 && code < 5000)
	if !known {
		return closeError{1002, "bad close code"}
	}
	return closeError{code, ""}
}

func (s *socket) write(opcode byte, payload []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errGone
	}
	return s.writeLocked(opcode, payload)
}

func (s *socket) writeLocked(opcode byte, payload []byte) error {
	head := []byte{0x80 | opcode}
	switch n := len(payload); {
	case n < 126:
		head = append(head, byte(n))
	case n <= 0xFFFF:
		head = binary.BigEndian.AppendUint16(append(head, 126), uint16(n))
	default:
		head = binary.BigEndian.AppendUint64(append(head, 127), uint64(n))
	}
	s.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	if _, err := s.conn.Write(append(head, payload...)); err != nil {
		return errGone
	}
	return nil
}

// sendClose sends a close frame once; nothing may follow it.
func (s *socket) sendClose(code uint16, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.closed = true
	s.writeLocked(opClose, append(binary.BigEndian.AppendUint16(nil, code), reason...))
	s.conn.SetReadDeadline(time.Now().Add(closeTimeout))
}

// finish ends the connection after err: with a close frame where one is due, and without a reset
// that could overtake it.
func (s *socket) finish(err error) {
	var end closeError
	if errors.As(err, &end) {
		s.sendClose(end.code, end.reason)
		if tcp, ok := s.conn.(*net.TCPConn); ok {
			tcp.CloseWrite()
		}
		io.Copy(io.Discard, io.LimitReader(s.reader, 1<<20))
	}
	s.conn.Close()
}

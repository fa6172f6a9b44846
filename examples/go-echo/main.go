// go-echo: a game server in Go with nothing but the standard library. It listens on PORT, sends
// every message back, answers "whoami" with what it knows of the session, and exits 0 on SIGTERM.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	maxConnections = 100         // players a session may have
	farewell       = time.Second // for the close frames of a stop
)

type server struct {
	mu       sync.Mutex
	sockets  map[*socket]bool
	stopping bool
	players  atomic.Int64
	messages atomic.Int64
}

// sessionID is what this server is for: known at start, or written to the session file at the
// claim of a warm instance, or told by the gateway with each player.
func sessionID(r *http.Request) string {
	if id := os.Getenv("SESSION_ID"); id != "" {
		return id
	}
	if path := os.Getenv("SPAWNPOINT_SESSION_FILE"); path != "" {
		var file struct {
			SessionID string `json:"session_id"`
		}
		if text, err := os.ReadFile(path); err == nil && json.Unmarshal(text, &file) == nil && file.SessionID != "" {
			return file.SessionID
		}
	}
	return r.Header.Get("X-Session-Id")
}

func whoami(r *http.Request) []byte {
	player, err := url.PathUnescape(r.Header.Get("X-Player-Id"))
	if err != nil {
		player = r.Header.Get("X-Player-Id")
	}
	text, _ := json.Marshal(map[string]any{ // strings and a number: cannot fail
		"session_id": sessionID(r),
		"player_id":  player,
		"fleet":      os.Getenv("SPAWNPOINT_FLEET"),
		"instance":   os.Getenv("SPAWNPOINT_INSTANCE"),
		"pid":        os.Getpid(),
	})
	return text
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !listHas(r.Header, "Upgrade", "websocket") {
		w.Write([]byte("go-echo\n")) // handy as a readiness path
		return
	}
	socket, err := upgrade(w, r)
	if err != nil {
		return
	}
	if !s.add(socket) {
		socket.finish(closeError{1013, "full or stopping"})
		return
	}
	defer s.remove(socket)
	s.players.Add(1)
	socket.finish(s.echo(socket, r))
}

func (s *server) echo(socket *socket, r *http.Request) error {
	for {
		opcode, message, err := socket.read()
		if err != nil {
			return err
		}
		s.messages.Add(1)
		if opcode == opText && string(message) == "whoami" {
			message = whoami(r)
		}
		if err := socket.write(opcode, message); err != nil {
			return err
		}
	}
}

func (s *server) add(socket *socket) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping || len(s.sockets) >= maxConnections {
		return false
	}
	s.sockets[socket] = true
	return true
}

func (s *server) remove(socket *socket) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sockets, socket)
}

// stop says goodbye to everybody at once: one player who takes nothing must not use up the grace.
func (s *server) stop() {
	s.mu.Lock()
	s.stopping = true
	var farewells sync.WaitGroup
	for open := range s.sockets {
		farewells.Add(1)
		go func(open *socket) {
			defer farewells.Done()
			open.sendClose(1001, "shutdown")
			open.conn.Close()
		}(open)
	}
	s.mu.Unlock()
	done := make(chan struct{})
	go func() { farewells.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(farewell):
	}
}

func (s *server) writeResults() {
	path := os.Getenv("SPAWNPOINT_RESULTS_FILE")
	if path == "" {
		return
	}
	text, _ := json.Marshal(map[string]int64{"connections": s.players.Load(), "messages": s.messages.Load()})
	if err := os.WriteFile(path, text, 0o644); err != nil {
		log.Print("results: ", err)
	}
}

func main() {
	// Before listening: from then on a SIGTERM is a stop, never a crash.
	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	port := os.Getenv("PORT")
	if port == "" {
		port = "8080"
	}
	listener, err := net.Listen("tcp", ":"+port)
	if err != nil {
		log.Fatal(err)
	}
	log.Printf("go-echo listening on %s", listener.Addr())
	game := &server{sockets: map[*socket]bool{}}
	// No idle timeout before the first byte: the gateway may keep its probe's socket for the first
	// player of a warm instance.
	web := &http.Server{Handler: game, MaxHeaderBytes: 16 * 1024}
	go func() {
		<-stop.Done()
		web.Close() // takes no new ones; the upgraded connections are the game's own
	}()
	if err := web.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
	game.stop()
	game.writeResults()
}

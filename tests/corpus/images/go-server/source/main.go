// A web server as Go programs in containers are: no C library, everything from the standard library.
package main

import (
	"compress/gzip"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

var (
	listen = flag.String("listen", "127.0.0.1:8080", "address")
	secure = flag.String("tls", "127.0.0.1:8443", "address with TLS")
)

func lookup(w http.ResponseWriter, r *http.Request) {
	addresses, err := net.DefaultResolver.LookupHost(r.Context(), r.FormValue("name"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	_ = json.NewEncoder(w).Encode(addresses)
}

func digest(w http.ResponseWriter, r *http.Request) {
	file, err := os.CreateTemp("", "body")
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer os.Remove(file.Name())
	defer file.Close()
	if _, err := io.Copy(file, http.MaxBytesReader(w, r.Body, 8<<20)); err != nil {
		http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
		return
	}
	_, _ = file.Seek(0, io.SeekStart)
	hash := sha256.New()
	_, _ = io.Copy(hash, file)
	fmt.Fprintf(w, "%x\n", hash.Sum(nil))
}

func fetch(w http.ResponseWriter, r *http.Request) {
	roots := x509.NewCertPool()
	pem, err := os.ReadFile("/etc/tls/tls.pem")
	if err == nil {
		roots.AppendCertsFromPEM(pem)
	}
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	answer, err := client.Get(r.FormValue("url"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer answer.Body.Close()
	_, _ = io.Copy(w, answer.Body)
}

func busy(w http.ResponseWriter, _ *http.Request) {
	var wait sync.WaitGroup
	var lock sync.Mutex
	sum := 0
	for i := 0; i < 64; i++ {
		wait.Add(1)
		go func(i int) {
			defer wait.Done()
			memory := make([]byte, 1<<20)
			for j := range memory {
				memory[j] = byte(i)
			}
			time.Sleep(time.Millisecond)
			lock.Lock()
			sum += int(memory[len(memory)-1])
			lock.Unlock()
		}(i)
	}
	wait.Wait()
	zipped := gzip.NewWriter(w)
	defer zipped.Close()
	fmt.Fprintln(zipped, sum)
}

func main() {
	flag.Parse()
	mux := http.NewServeMux()
	mux.HandleFunc("/lookup", lookup)
	mux.HandleFunc("/digest", digest)
	mux.HandleFunc("/fetch", fetch)
	mux.HandleFunc("/busy", busy)
	mux.HandleFunc("/panic", func(http.ResponseWriter, *http.Request) { panic("as asked") })
	mux.Handle("/files/", http.StripPrefix("/files/", http.FileServer(http.Dir("/usr/share/common-licenses"))))
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		host, _ := os.Hostname()
		fmt.Fprintf(w, "hello from %s, uid %d, %s\n", host, os.Getuid(), time.Now().In(time.Local).Format(time.RFC3339))
	})
	plain := &http.Server{Addr: *listen, Handler: mux}
	encrypted := &http.Server{Addr: *secure, Handler: mux}
	reload := make(chan os.Signal, 1)
	signal.Notify(reload, syscall.SIGHUP)
	go func() {
		for range reload {
			log.Print("told to reload")
		}
	}()
	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer cancel()
	go func() {
		if err := encrypted.ListenAndServeTLS("/etc/tls/tls.pem", "/etc/tls/tls.key"); !errors.Is(err, http.ErrServerClosed) {
			log.Fatal(err)
		}
	}()
	go func() {
		<-stop.Done()
		limit, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = encrypted.Shutdown(limit)
		_ = plain.Shutdown(limit)
	}()
	if err := plain.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
	log.Print("stopped")
}

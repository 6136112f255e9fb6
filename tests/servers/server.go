// The model server without a model of app.py, for Go's net/http. Arguments: PORT [CERT KEY]; with a certificate it speaks
// TLS by crypto/tls. It keeps no record: the client's is the truth.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"
)

const model = "tiny"

var ids int64

type object = map[string]interface{}

type question struct {
	Model     string
	Messages  []struct{ Content string }
	MaxTokens int  `json:"max_tokens"`
	Stream    bool `json:"stream"`
	Prefill   int  `json:"prefill_ms"`
	Pace      int  `json:"pace_ms"`
	Options   struct {
		Usage bool `json:"include_usage"`
	} `json:"stream_options"`
}

func (q *question) words() (words []string) {
	for _, message := range q.Messages {
		words = append(words, strings.Fields(message.Content)...)
	}
	return words
}

func sleep(ms int) { time.Sleep(time.Duration(ms) * time.Millisecond) }

func answer(w http.ResponseWriter, status int, value object) {
	body, _ := json.Marshal(value)
	w.Header().Set("content-type", "application/json")
	w.Header().Set("content-length", fmt.Sprint(len(body)))
	w.WriteHeader(status)
	w.Write(body)
}

func refuse(w http.ResponseWriter, status int, code, message string) {
	answer(w, status, object{"error": object{"message": message, "type": "invalid_request_error", "code": code}})
}

func usage(prompt, completion int) object {
	return object{"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
}

func chat(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	var q question
	if err := json.Unmarshal(body, &q); err != nil {
		refuse(w, 400, "invalid_request_error", err.Error())
		return
	}
	if q.Model != model {
		refuse(w, 404, "model_not_found", "no model "+q.Model)
		return
	}
	id := fmt.Sprintf("chatcmpl-%d", atomic.AddInt64(&ids, 1))
	if q.Stream {
		stream(w, &q, id)
	} else {
		complete(w, &q, id)
	}
}

func complete(w http.ResponseWriter, q *question, id string) {
	sleep(q.Prefill + q.MaxTokens*q.Pace)
	words, text := q.words(), []string{}
	for index := 0; index < q.MaxTokens; index++ {
		text = append(text, words[index%len(words)])
	}
	message := object{"role": "assistant", "content": strings.Join(text, " ")}
	answer(w, 200, object{
		"id": id, "object": "chat.completion", "created": 1, "model": model,
		"choices": []object{{"index": 0, "message": message, "finish_reason": "length"}},
		"usage":   usage(len(words), q.MaxTokens),
	})
}

func stream(w http.ResponseWriter, q *question, id string) {
	event := func(more object) {
		whole := object{"id": id, "object": "chat.completion.chunk", "created": 1, "model": model}
		for name, value := range more {
			whole[name] = value
		}
		data, _ := json.Marshal(whole)
		fmt.Fprintf(w, "data: %s\n\n", data)
		w.(http.Flusher).Flush()
	}
	delta := func(delta object, finish interface{}) {
		event(object{"choices": []object{{"index": 0, "delta": delta, "finish_reason": finish}}})
	}
	w.Header().Set("content-type", "text/event-stream")
	delta(object{"role": "assistant", "content": ""}, nil)
	sleep(q.Prefill)
	words := q.words()
	for index := 0; index < q.MaxTokens; index++ {
		if index > 0 {
			sleep(q.Pace)
		}
		delta(object{"content": " " + words[index%len(words)]}, nil)
	}
	delta(object{}, "length")
	if q.Options.Usage {
		event(object{"choices": []object{}, "usage": usage(len(words), q.MaxTokens)})
	}
	fmt.Fprint(w, "data: [DONE]\n\n")
}

func main() {
	http.HandleFunc("/v1/chat/completions", chat)
	http.HandleFunc("/health", func(w http.ResponseWriter, _ *http.Request) { answer(w, 200, object{"status": "ok"}) })
	address := "127.0.0.1:" + os.Args[1]
	if len(os.Args) > 3 {
		log.Fatal(http.ListenAndServeTLS(address, os.Args[2], os.Args[3], nil))
	}
	log.Fatal(http.ListenAndServe(address, nil))
}

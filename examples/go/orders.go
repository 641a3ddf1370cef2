// Places an order and reads it back. It knows nothing of fieldveil: the only change is BASE_URL.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"os"
	"reflect"
	"time"
)

type card struct {
	Number string `json:"number"`
}

type order struct {
	Name   string  `json:"name"`
	SSN    string  `json:"ssn"`
	Cards  []card  `json:"cards"`
	Amount float64 `json:"amount"`
}

var client = &http.Client{Timeout: 30 * time.Second}

// call sends a document as JSON; it gives the one of the answer, and its Location.
func call(method, url string, document *order) (got order, location string) {
	body := new(bytes.Buffer)
	if document != nil {
		if err := json.NewEncoder(body).Encode(document); err != nil {
			log.Fatal(err)
		}
	}
	request, err := http.NewRequest(method, url, body)
	if err != nil {
		log.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	answer, err := client.Do(request)
	if err != nil {
		log.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode >= 400 {
		log.Fatal(method, " ", url, ": ", answer.Status)
	}
	if err := json.NewDecoder(answer.Body).Decode(&got); err != nil {
		log.Fatal(err)
	}
	return got, answer.Header.Get("Location")
}

func main() {
	// Was: https://api.example.com
	base := "http://127.0.0.1:8080"
	if given := os.Getenv("BASE_URL"); given != "" {
		base = given
	}
	sent := order{"Ada", "123-45-6789", []card{{"4111111111111111"}, {"5500005555555559"}}, 19.90}
	placed, location := call("POST", base+"/orders", &sent)
	fmt.Printf("placed: %+v\n", placed)
	read, _ := call("GET", base+location, nil)
	fmt.Printf("read:   %+v\n", read)
	if !reflect.DeepEqual(placed, sent) || !reflect.DeepEqual(read, sent) {
		log.Fatal("the order did not come back as it was sent")
	}
}

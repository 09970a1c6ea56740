// Verifies assertions of usersd, one on each line of standard input: assertion JWKS_URL ISSUER AUDIENCE.
package main

import (
	"bufio"
	"fmt"
	"log"
	"os"
	"strings"
	"time"

	"github.com/MicahParks/keyfunc/v2"
	"github.com/golang-jwt/jwt/v5"
)

// The claims of an assertion.
type claims struct {
	jwt.RegisteredClaims
	Namespace string   `json:"ns"`
	Session   string   `json:"sid"`
	AuthTime  int64    `json:"auth_time"`
	Methods   []string `json:"amr"`
}

// verifier returns a function that returns the claims of a valid assertion, and an error for any other.
func verifier(address, issuer, audience string) (func(string) (*claims, error), error) {
	// Reads the keys every five minutes, and when it meets one that it does not know.
	keys, err := keyfunc.Get(address, keyfunc.Options{
		RefreshInterval:   5 * time.Minute,
		RefreshRateLimit:  10 * time.Second,
		RefreshTimeout:    5 * time.Second,
		RefreshUnknownKID: true,
	})
	if err != nil {
		return nil, err
	}
	parser := jwt.NewParser(jwt.WithValidMethods([]string{"EdDSA"}), jwt.WithIssuer(issuer), jwt.WithAudience(audience),
		jwt.WithExpirationRequired())
	return func(assertion string) (*claims, error) {
		found := new(claims)
		_, err := parser.ParseWithClaims(assertion, found, keys.Keyfunc)
		return found, err
	}, nil
}

func main() {
	if len(os.Args) != 4 {
		log.Fatal("usage: assertion JWKS_URL ISSUER AUDIENCE")
	}
	verify, err := verifier(os.Args[1], os.Args[2], os.Args[3])
	if err != nil {
		log.Fatal(err)
	}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		if found, err := verify(strings.TrimSpace(lines.Text())); err == nil {
			fmt.Println("accepted", found.Namespace, found.Subject)
		} else {
			fmt.Println("refused")
		}
	}
}

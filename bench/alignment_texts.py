"""What the voices of the alignment sets say: agent speech in eight languages.

``[shown|said]`` marks a word that is displayed in one way and spoken in another; the transcript of a
speech model shows digits, the voice says words, and not always the same ones.
"""

TEXTS: dict[str, tuple[str, ...]] = {
    "en": (
        "Good morning, you've reached Harbor Dental. How may I help you?",
        "Your balance is [$142.80|one hundred forty two dollars and eighty cents], due on "
        "June [3rd.|third.]",
        "I found two flights. The first one leaves at [6:05|six oh five] in the morning, and the "
        "second at [11:40.|eleven forty.]",
        "Can I have the last four digits of your card? It starts with [4417,|four four one seven,] "
        "right?",
        "That's [25%|twenty five percent] off, so you pay [$37.50|thirty seven fifty] instead of "
        "[$50.|fifty dollars.]",
        "No worries, take your time.",
        "The tracking number is [J8K|j eight k] [2015,|two zero one five,] and it should arrive "
        "between [9|nine] and [12.|twelve.]",
        "I've moved your appointment to Wednesday the [17th,|seventeenth,] at "
        "[2:30|two thirty] with Doctor Alvarez.",
        "Please send the form to [help@northwind.org|help at northwind dot org] before Friday.",
        "Our office is at [305|three oh five] West Elm Road, on the [4th|fourth] floor, across from "
        "the library.",
        "Sorry about that! It seems the line was cut off for a second. Where were we?",
        "So that's three tickets to Chicago, leaving on the [21st|twenty first] and coming back on "
        "the [28th.|twenty eighth.] Shall I go ahead and book it?",
        "You can call us back at [555-0198|five five five zero one nine eight] any time before "
        "[8|eight] tonight.",
        "Our lawn service runs from April through October, and the first visit is free of charge.",
        "Let me see. The blue one is out of stock, the green one ships on Monday, and the red one "
        "is available now, but only in a large.",
        "Okay.",
        "Sure thing. Is there anything else that I can do for you today?",
        "To reset your password, open the app, tap on settings, then choose security, and follow "
        "the steps on the screen. If it asks for a code, wait for the text message and type it in. "
        "It can take up to [2|two] minutes to arrive, so don't close the app.",
        "I'm afraid we can't refund that without a receipt, but I can give you store credit worth "
        "[$18.|eighteen dollars.]",
        "The reservation is under Whitfield, [W-H-I-T-F-I-E-L-D,|w h i t f i e l d,] is that "
        "correct?",
        "We charge [$1,250|one thousand two hundred fifty dollars] for the first month and "
        "[$975|nine hundred seventy five dollars] after that, with no contract.",
        "This call is being recorded. By continuing, you agree to our terms, which you can find on "
        "our website.",
        "Hold on, I'm checking with the kitchen. Yes, they can make it without peanuts, and it will "
        "take about [45|forty five] minutes.",
        "Great question! In [2019|twenty nineteen] we had [3|three] stores, and today there are "
        "more than [60|sixty] of them all over the country.",
    ),
    "es": (
        "Buenos días, ha llamado a la clínica dental del puerto. ¿En qué le puedo ayudar?",
        "Su saldo es de [142|ciento cuarenta y dos] euros, y vence el [3|tres] de junio.",
        "He encontrado dos vuelos. El primero sale a las seis y cinco de la mañana, y el segundo a "
        "las once y cuarenta.",
        "Eso es un [25%|veinticinco por ciento] de descuento, así que paga [37,50|treinta y siete "
        "con cincuenta] euros.",
        "No se preocupe, tómese su tiempo.",
        "He cambiado su cita al miércoles [17|diecisiete] a las dos y media con el doctor Álvarez.",
        "Nuestra oficina está en la calle Olmo, número [305,|trescientos cinco,] en la cuarta "
        "planta, enfrente de la biblioteca.",
        "Perdone, parece que se ha cortado la línea. ¿Por dónde íbamos?",
        "Para cambiar la contraseña, abra la aplicación, pulse en ajustes, elija seguridad y siga "
        "los pasos. Si le pide un código, espere el mensaje y escríbalo.",
        "Vale.",
        "Puede llamarnos al [912|nueve uno dos] [40|cuarenta] [18|dieciocho] cualquier día.",
        "El azul está agotado, el verde se envía el lunes, y el rojo está disponible ahora.",
    ),
    "de": (
        "Guten Morgen, hier ist die Zahnklinik am Hafen. Wie kann ich Ihnen helfen?",
        "Ihr Guthaben beträgt [142|hundertzweiundvierzig] Euro und [80|achtzig] Cent.",
        "Ich habe zwei Flüge gefunden. Der erste geht um fünf nach sechs, und der zweite um zwanzig "
        "vor zwölf.",
        "Das sind [25|fünfundzwanzig] Prozent Rabatt, also zahlen Sie nur [37,50|siebenunddreißig "
        "Komma fünf null] Euro.",
        "Kein Problem, lassen Sie sich Zeit.",
        "Ich habe Ihren Termin auf Mittwoch verlegt, den [17.|siebzehnten] Juni, um "
        "[14:30|vierzehn Uhr dreißig] bei Doktor Schäfer.",
        "Unser Büro ist in der Ulmenstraße, gegenüber der Bücherei, im vierten Stock.",
        "Entschuldigung, die Verbindung war kurz weg. Wo waren wir stehen geblieben?",
        "Öffnen Sie bitte die App, tippen Sie auf Einstellungen, dann auf Sicherheit, und folgen "
        "Sie den Anweisungen. Wenn ein Code verlangt wird, warten Sie auf die Nachricht.",
        "Gerne.",
        "Das blaue Hemd ist ausverkauft, das grüne kommt am Montag, und das rote haben wir da.",
        "Die Bestellnummer ist [4417,|vier vier eins sieben,] bitte schreiben Sie sie auf.",
    ),
    "fr": (
        "Bonjour, vous êtes bien au cabinet dentaire du port. Que puis-je faire pour vous?",
        "Votre solde est de [142|cent quarante-deux] euros, à régler avant le [3|trois] juin.",
        "J'ai trouvé deux vols. Le premier part à six heures cinq, et le second à onze heures "
        "quarante.",
        "Cela fait [25%|vingt-cinq pour cent] de remise, donc vous payez [37,50|trente-sept virgule "
        "cinquante] euros.",
        "Pas de souci, prenez votre temps.",
        "J'ai déplacé votre rendez-vous au mercredi [17|dix-sept] avec le docteur Lefèvre.",
        "Notre bureau se trouve rue des Ormes, au quatrième étage, en face de la bibliothèque.",
        "Excusez-moi, la ligne a été coupée un instant. Où en étions-nous?",
        "Ouvrez l'application, touchez les réglages, choisissez la sécurité et suivez les étapes. "
        "Si un code est demandé, attendez le message et tapez-le.",
        "D'accord.",
        "Le bleu est épuisé, le vert part lundi, et le rouge est disponible tout de suite.",
        "Votre numéro de dossier est le [4417,|quatre quatre un sept,] notez-le bien.",
    ),
    "it": (
        "Buongiorno, risponde la clinica dentale del porto. Come posso aiutarla?",
        "Il suo saldo è di [142|centoquarantadue] euro, da pagare entro il [3|tre] giugno.",
        "Ho trovato due voli. Il primo parte alle sei e cinque, e il secondo alle undici e "
        "quaranta.",
        "Sono [25|venticinque] euro di sconto, quindi paga [37|trentasette] euro e [50|cinquanta.]",
        "Non si preoccupi, faccia con calma.",
        "Ho spostato il suo appuntamento a mercoledì [17,|diciassette,] alle due e mezza.",
        "Il nostro ufficio è in via degli Olmi, al quarto piano, di fronte alla biblioteca.",
        "Mi scusi, la linea è caduta per un momento. Dove eravamo rimasti?",
        "Apra l'applicazione, tocchi le impostazioni, scelga la sicurezza e segua le istruzioni. Se "
        "serve un codice, aspetti il messaggio e lo scriva.",
        "Certo.",
        "Quello azzurro è esaurito, quello verde parte lunedì, e quello rosso è disponibile.",
        "Il numero della pratica è [4417,|quattro quattro uno sette,] se lo scriva.",
    ),
    "pt": (
        "Bom dia, ligou para a clínica dentária do porto. Como posso ajudar?",
        "O seu saldo é de [142|cento e quarenta e dois] euros, e vence a [3|três] de junho.",
        "Encontrei dois voos. O primeiro sai às seis e cinco, e o segundo às onze e quarenta.",
        "São [25|vinte e cinco] por cento de desconto, por isso paga [37|trinta e sete] euros.",
        "Não se preocupe, leve o tempo que precisar.",
        "Mudei a sua consulta para quarta-feira, dia [17,|dezassete,] às duas e meia.",
        "O nosso escritório fica na rua dos Ulmeiros, no quarto andar, em frente à biblioteca.",
        "Desculpe, a ligação caiu por um momento. Onde é que estávamos?",
        "Abra a aplicação, toque em definições, escolha segurança e siga os passos. Se pedir um "
        "código, espere pela mensagem e escreva o número.",
        "Claro.",
        "O azul está esgotado, o verde é enviado na segunda-feira, e o vermelho está disponível.",
        "O número do processo é [4417,|quatro quatro um sete,] tome nota por favor.",
    ),
    "nl": (
        "Goedemorgen, u spreekt met de tandarts aan de haven. Waarmee kan ik u helpen?",
        "Uw saldo is [142|honderdtweeënveertig] euro, te betalen voor [3|drie] juni.",
        "Ik heb twee vluchten gevonden. De eerste vertrekt om vijf over zes, en de tweede om twintig "
        "voor twaalf.",
        "Dat is [25|vijfentwintig] procent korting, dus u betaalt [37|zevenendertig] euro.",
        "Geen probleem, neem rustig de tijd.",
        "Ik heb uw afspraak verzet naar woensdag [17|zeventien] juni, om half drie.",
        "Ons kantoor is in de Iepenstraat, op de vierde verdieping, tegenover de bibliotheek.",
        "Sorry, de verbinding viel even weg. Waar waren we gebleven?",
        "Open de app, tik op instellingen, kies beveiliging en volg de stappen. Als er een code "
        "gevraagd wordt, wacht dan op het bericht en typ die in.",
        "Prima.",
        "De blauwe is uitverkocht, de groene wordt maandag verstuurd, en de rode is er nu.",
        "Het dossiernummer is [4417,|vier vier een zeven,] schrijf het even op.",
    ),
    "ca": (
        "Bon dia, ha trucat a la clínica dental del port. En què el puc ajudar?",
        "No es preocupi, prengui's el temps que calgui.",
        "El blau està esgotat, el verd surt dilluns, i el vermell està disponible ara mateix.",
    ),
}
